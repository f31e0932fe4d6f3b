"""What all parts of a checkpoint's header have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class HeaderPart(BaseModel):
    """Immutable, refuses unknown fields, NaN and infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
