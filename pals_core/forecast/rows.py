"""Recent values given for a forecast, as plain data; free of torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ForecastRows(BaseModel):
    """Time steps, oldest first, and as many values of each column; a missing value is null."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    timestamps: tuple[str, ...] = Field(min_length=1, description="ISO 8601; with a time zone they are read as UTC.")
    values: dict[str, tuple[float | None, ...]] = Field(min_length=1, description="Every column the model learnt.")
