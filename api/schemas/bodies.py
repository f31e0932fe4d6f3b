"""What every request and response body shares."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, LiteralString, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pals_core.errors import pointer_of

MAX_DEPTH = 32
# A custom error that carries this context says itself where in the body it is.
POINTER_CONTEXT = "pointer"
Item = TypeVar("Item")

UtcTime = Annotated[datetime, Field(description="RFC 3339, UTC.", examples=["2026-01-31T12:00:00Z"])]


class RequestBody(BaseModel):
    """Refuses unknown fields, NaN, texts no database can keep, and bodies nested without end."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        _check_storable(value, "", 0)
        return value


class ResponseBody(BaseModel):
    model_config = ConfigDict(frozen=True, serialize_by_alias=True)


class PageBody(ResponseBody, Generic[Item]):
    """One page of a list."""

    data: list[Item]
    has_more: bool = Field(description="True when another page follows.")
    next: str | None = Field(description="Give it as `after` to get the next page; null at the end.")


def storable_text(text: str) -> bool:
    """False for texts that PostgreSQL or UTF-8 cannot keep: NUL characters and lone surrogates."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _check_storable(value: Any, pointer: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _refused("nested_too_deeply", f"is nested more than {MAX_DEPTH} levels deep", pointer)
    if isinstance(value, str):
        if not storable_text(value):
            raise _refused("unstorable_text", "holds a NUL character or half a surrogate pair", pointer)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not storable_text(key):
                raise _refused("unstorable_text", "has a key with a NUL character or half a surrogate pair", pointer)
            _check_storable(inner, pointer + pointer_of([key]), depth + 1)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            if isinstance(inner, (str, list, dict)):
                _check_storable(inner, f"{pointer}/{position}", depth + 1)


def _refused(kind: LiteralString, message: str, pointer: str) -> PydanticCustomError:
    return PydanticCustomError(kind, "{message}", {"message": message, POINTER_CONTEXT: pointer})
