"""Forecasts as they are asked for and answered."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, JsonValue, StringConstraints, model_validator

from api.schemas.bodies import RequestBody, ResponseBody

MAX_STEPS = 200_000
MAX_SERIES = 2_000
MAX_HORIZON = 10_000_000
MAX_LEVELS = 20
EXAMPLES: list[JsonValue] = [
    {},
    {"dataset_id": "ds_0199c2f4a1b20123456789abcdef"},
    {
        "timestamps": ["2026-01-01T00:00:00", "2026-01-01T01:00:00", "2026-01-01T02:00:00"],
        "values": {"load": [310.5, 298.0, 291.2]},
    },
    {"horizon": 48, "levels": [50, 90]},
    {"future": {"timestamps": ["2026-01-01T03:00:00"], "values": {"temperature": [2.5]}}},
]


Times = Annotated[list[Annotated[str, StringConstraints(max_length=64)]], Field(min_length=1, max_length=MAX_STEPS)]
Level = Annotated[float, Field(gt=0, lt=100)]
Columns = Annotated[dict[str, list[float | None]], Field(min_length=1)]


class FutureValues(RequestBody):
    """The known-future columns at the time steps of the forecast, or more of them."""

    timestamps: Times = Field(description="Times of the values; every step of the horizon is needed.")
    values: Columns = Field(description="Values of every known-future column; null: missing.")

    @model_validator(mode="after")
    def _as_many_as_times(self) -> FutureValues:
        _require_lengths(self.timestamps, self.values)
        return self


class ForecastRequest(RequestBody):
    """What the forecast goes on from: given values, a dataset's end, or, with neither, the training series' end."""

    model_config = ConfigDict(json_schema_extra={"examples": [*EXAMPLES]})

    timestamps: Times | None = Field(None, description="Times of the given values, at least input_len of them.")
    values: Columns | None = Field(
        None,
        description="Values of every column of the model, the known-future ones included, in its original units; null: "
        "missing. Of a pooled model, of one series or more.",
    )
    dataset_id: str | None = Field(
        None, min_length=1, max_length=40, description="A ready dataset with the model's columns; its end is taken."
    )
    future: FutureValues | None = Field(None, description="Needed by a model with known-future columns.")
    series: list[str] | None = Field(
        None,
        min_length=1,
        max_length=MAX_SERIES,
        description="Which series a pooled model forecasts; null: those given that it was trained on. One that was not "
        "in the training is scaled by the mean and standard deviation of all its given values.",
    )

    horizon: int | None = Field(
        None,
        ge=1,
        le=MAX_HORIZON,
        description="Steps to forecast, at most 100 times the model's horizon; null: its horizon. Beyond that it goes "
        "on from its own forecasts, in whole horizons, to the end of which a known future must reach.",
    )
    levels: list[Level] | None = Field(
        None,
        max_length=MAX_LEVELS,
        description="Levels of the prediction intervals in per cent; null: 80 and 95 where the checkpoint has them. An "
        "empty list: none.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> ForecastRequest:
        if (self.timestamps is None) != (self.values is None):
            raise ValueError("timestamps and values belong together")
        if self.dataset_id is not None and self.values is not None:
            raise ValueError("give either values or a dataset_id, not both")
        _require_lengths(self.timestamps or [], self.values or {})
        return self


def _require_lengths(timestamps: list[str], columns: dict[str, list[float | None]]) -> None:
    for column, values in columns.items():
        if len(values) != len(timestamps):
            raise ValueError(f"column {column!r} has {len(values)} values for {len(timestamps)} timestamps")


class IntervalBody(ResponseBody):
    """Between what bounds the values shall lie; null where the forecast is, and beyond the model's own horizon."""

    level: float = Field(description="In so many per cent of all cases.")
    lower: dict[str, list[float | None]]
    upper: dict[str, list[float | None]]


class ForecastBody(ResponseBody):
    """The steps after the last given one."""

    checkpoint_id: str
    timestamps: list[str] = Field(description="The forecast's times.")
    columns: list[str]
    values: dict[str, list[float | None]] = Field(
        description="By column, in the data's own units. Pooled series that end at different times have null at the "
        "steps that are not their own."
    )
    intervals: list[IntervalBody] = Field(
        description="Prediction intervals, by column. Empty of a checkpoint without a calibration: only the best one "
        "of a training that ended has one."
    )
