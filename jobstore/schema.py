"""Brings the database's schema to the version this code needs."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file, files
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from jobstore.database import Database
from jobstore.tables import Base

MIGRATION_LOCK = 7_214_055_318


class SchemaOutdated(Exception):
    """The database is at another version than this code; says what to run."""


def upgrade(database: Database, revision: str = "head") -> None:
    """Run the migrations up to `revision`; processes that start together wait for one another.

    Raises SchemaOutdated when a newer version of this program has been at the database.
    """
    _require_known(database)
    _run(database, lambda config: command.upgrade(config, revision))


def downgrade(database: Database, revision: str) -> None:
    """Run the migrations back to `revision` ("base" removes everything)."""
    _run(database, lambda config: command.downgrade(config, revision))


def differences(database: Database) -> list[Any]:
    """What autogenerate would still change; empty when migrations and tables agree."""
    with database.engine.connect() as connection:
        return list(
            compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata)
        )


def require_current(database: Database) -> None:
    """Raise SchemaOutdated unless the database is at this code's version."""
    current, known = _require_known(database)
    if current != known[0]:
        raise SchemaOutdated(f"the database is at version {current}, this program needs {known[0]}: run `pals migrate`")


def _require_known(database: Database) -> tuple[str | None, list[str]]:
    """Return the database's version, None of an empty one, and all that this code knows, newest first."""
    with as_file(files("migrations")) as folder:
        known = [script.revision for script in ScriptDirectory(str(folder)).walk_revisions()]
    with database.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise SchemaOutdated(
            f"the database is at version {current}, this program knows versions up to {known[0]}: "
            "a newer version of it has been here; install that one, or restore a backup made before"
        )
    return current, known


def _run(database: Database, migrate: Callable[[Config], None]) -> None:
    with as_file(files("migrations")) as folder, database.writing.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.attributes["connection"] = connection
        migrate(config)
