"""What all parts of the spec have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class FrozenSpec(BaseModel):
    """Immutable, refuses unknown fields, NaN and infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def name_alone(value: Any) -> Any:
    """A bare string is short for that name with its defaults."""
    return {"name": value} if isinstance(value, str) else value
