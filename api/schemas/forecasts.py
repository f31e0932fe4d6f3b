"""Forecasts as they are asked for and answered."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, JsonValue, StringConstraints, model_validator

from api.schemas.bodies import RequestBody, ResponseBody

MAX_STEPS = 200_000
EXAMPLES: list[JsonValue] = [
    {},
    {"dataset_id": "ds_0199c2f4a1b20123456789abcdef"},
    {
        "timestamps": ["2026-01-01T00:00:00", "2026-01-01T01:00:00", "2026-01-01T02:00:00"],
        "values": {"load": [310.5, 298.0, 291.2]},
    },
]


class ForecastRequest(RequestBody):
    """What the forecast goes on from: given values, a dataset's end, or, with neither, the training series' end."""

    model_config = ConfigDict(json_schema_extra={"examples": [*EXAMPLES]})

    timestamps: list[Annotated[str, StringConstraints(max_length=64)]] | None = Field(
        None, min_length=1, max_length=MAX_STEPS, description="Times of the given values, at least input_len of them."
    )
    values: dict[str, list[float | None]] | None = Field(
        None, min_length=1, description="Values of every column of the model, in its original units; null: missing."
    )
    dataset_id: str | None = Field(
        None, min_length=1, max_length=40, description="A ready dataset with the model's columns; its end is taken."
    )

    @model_validator(mode="after")
    def _one_source(self) -> ForecastRequest:
        if (self.timestamps is None) != (self.values is None):
            raise ValueError("timestamps and values belong together")
        if self.dataset_id is not None and self.values is not None:
            raise ValueError("give either values or a dataset_id, not both")
        for column, values in (self.values or {}).items():
            if len(values) != len(self.timestamps or ()):
                raise ValueError(
                    f"column {column!r} has {len(values)} values for {len(self.timestamps or ())} timestamps"
                )
        return self


class ForecastBody(ResponseBody):
    """The steps after the last given one."""

    checkpoint_id: str
    timestamps: list[str] = Field(description="The forecast's times.")
    columns: list[str]
    values: dict[str, list[float]] = Field(description="By column, in the data's own units.")
