"""What keeps a command from starting, told in a line instead of a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsError
from sqlalchemy.exc import DBAPIError

from jobstore.database import DatabaseUnavailable
from jobstore.schema import SchemaOutdated
from jobstore.settings import ENV_PREFIX, Settings

REFUSED = 2  # the exit code


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """Exit with one line about a database or a folder that cannot be used."""
    try:
        yield
    except (DatabaseUnavailable, SchemaOutdated, OSError) as error:
        _refuse(str(error))
    except DBAPIError as error:
        _refuse(f"the database cannot be used: {str(error.orig).partition(chr(10))[0]}")


def read_settings() -> Settings:
    """Return the settings of the environment, or exit with a line for each variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        _refuse("\n".join(_sentence(str(one["loc"][0]), one["msg"], one["input"]) for one in error.errors()))
    except SettingsError as error:
        # Its text alone says which: error parsing value for field "…" from source "…"
        name = re.findall(r'"(\w+)"', str(error))[0]
        _refuse(f"{ENV_PREFIX}{name.upper()}: {Settings.model_fields[name].description}")


def _sentence(field: str, message: str, value: object) -> str:
    told = message.removeprefix("Value error, ").replace("Input should be", "must be")
    is_secret = SecretStr in getattr(Settings.model_fields[field].annotation, "__args__", ())
    return f"{ENV_PREFIX}{field.upper()}: {told}" + ("" if is_secret else f"; it is {value!r}")


def _refuse(why: str) -> NoReturn:
    typer.echo(why, err=True)
    raise typer.Exit(REFUSED)
