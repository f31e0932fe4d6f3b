"""What all parts of the spec have in common."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError


class FrozenSpec(BaseModel):
    """Immutable, refuses unknown fields, NaN and infinities, and truth values for numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_not_true_or_false(cls, fields: Any) -> Any:
        """Pydantic would read true as 1."""
        if isinstance(fields, Mapping):
            wrong = [
                InitErrorDetails(
                    type=PydanticCustomError("truth_value", "must be a number, not true or false"),
                    loc=(name,),
                    input=fields[name],
                )
                for name, field in cls.model_fields.items()
                if isinstance(fields.get(name), bool) and not {int, float}.isdisjoint(_types_in(field.annotation))
            ]
            if wrong:
                raise ValidationError.from_exception_data(cls.__name__, wrong)
        return fields


def name_alone(value: Any) -> Any:
    """A bare string is short for that name with its defaults."""
    return {"name": value} if isinstance(value, str) else value


def _types_in(annotation: Any) -> Iterator[Any]:
    """Yield a type, or those that may stand in its place."""
    alternatives = typing.get_args(annotation)
    yield from (inner for part in alternatives for inner in _types_in(part))
    if not alternatives:
        yield annotation
