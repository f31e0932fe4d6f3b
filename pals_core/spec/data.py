"""Which columns of a table, how much history, how far ahead, split and repaired how."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from pals_core.spec.frozen import FrozenSpec


class MissingPolicy(StrEnum):
    ERROR = "error"
    INTERPOLATE = "interpolate"
    FFILL = "ffill"
    MASK = "mask"


class SeriesMode(StrEnum):
    JOINT = "joint"
    POOLED = "pooled"


class Aggregation(StrEnum):
    MEAN = "mean"
    SUM = "sum"
    LAST = "last"
    MIN = "min"
    MAX = "max"


class Resample(FrozenSpec):
    """A slower clock: the steps of the data that fall into one step of it become one value."""

    frequency: str = Field(
        min_length=1,
        max_length=16,
        description="pandas offset alias slower than the data's: multiples of s, min, h, D and W-SUN … W-SAT, or MS, "
        "ME, QS, QE, YS, YE; multiples count from 1970, so that the steps lie where they do whatever the data.",
    )
    aggregation: Aggregation = Field(
        Aggregation.MEAN, description="What becomes of the values of one step; missing as soon as one of them is."
    )


class Split(FrozenSpec):
    """Chronological split, as shares of the rows or as whole row counts.

    Shares follow the paper's data files: train ⌊n·train⌋, test ⌊n·test⌋, validation the rest. Row
    counts take the first rows of the table and leave what remains unused (ETT hourly: 8640, 2880,
    2880).
    """

    train: float = Field(0.7, gt=0, description="Share of rows, or a whole number of rows, to train on.")
    validation: float = Field(0.1, gt=0, description="Share or number of rows that decide when to prune and stop.")
    test: float = Field(0.2, gt=0, description="Share or number of rows that only measure.")

    @property
    def counts_rows(self) -> bool:
        """True when the three numbers are row counts rather than shares."""
        return min(self.train, self.validation, self.test) >= 1

    @model_validator(mode="after")
    def _shares_or_counts(self) -> Split:
        parts = (self.train, self.validation, self.test)
        if self.counts_rows:
            if any(part != int(part) for part in parts):
                raise ValueError("row counts must be whole numbers")
        elif max(parts) >= 1:
            raise ValueError("give either three shares below 1 or three row counts, not a mixture")
        elif not 0.999 <= sum(parts) <= 1.001:
            raise ValueError(f"the shares add up to {sum(parts):g}; they must add up to 1")
        return self


def _frequency_alone(value: Any) -> Any:
    """A bare string is short for that frequency with the default aggregation."""
    return {"frequency": value} if isinstance(value, str) else value


class DataSpec(FrozenSpec):
    """Which columns, how much history, how far ahead."""

    targets: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Columns (or series ids of a long table) to learn and forecast; null takes all numeric ones.",
    )
    known_future: tuple[str, ...] = Field(
        (),
        description="Columns whose future is known when a forecast is made (a weather forecast, holidays); they join "
        "the calendar features, are not forecast themselves, and every forecast needs their future values.",
    )
    series: SeriesMode | None = Field(
        None,
        description="joint: all columns are one multivariate window. pooled: windows of one column each, from every "
        "series, with a split and a scaling of its own. null: pooled for a long table, joint for a wide one.",
    )
    input_len: int | None = Field(
        None, ge=2, le=100_000, description="Steps of history in a window; 96, or 36 for weekly and slower data."
    )
    label_len: int | None = Field(
        None, ge=0, le=100_000, description="Known steps that seed the decoder; half of input_len."
    )
    horizon: int = Field(ge=1, le=100_000, description="Steps to forecast.")
    split: Split = Field(default_factory=Split, description="Chronological split into training, validation and test.")
    missing: MissingPolicy = Field(
        MissingPolicy.ERROR,
        description="What to do about missing values and time steps: refuse, interpolate, or repeat the last value, "
        "each part of the split being filled from itself alone; or mask: 0 after scaling, left out of loss and "
        "metrics.",
    )
    resample: Annotated[Resample | None, BeforeValidator(_frequency_alone)] = Field(
        None, description="Bring the table to a slower frequency before everything else; or just that frequency."
    )

    @property
    def pooled(self) -> bool:
        return self.series is SeriesMode.POOLED

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Every column that is read, the known-future ones last; None for all there are."""
        return None if self.targets is None else (*self.targets, *self.known_future)

    @model_validator(mode="after")
    def _label_within_input(self) -> DataSpec:
        if self.label_len is not None and self.input_len is not None and self.label_len > self.input_len:
            raise ValueError(f"label_len {self.label_len} is longer than input_len {self.input_len}")
        if self.targets is not None and len(set(self.targets)) != len(self.targets):
            raise ValueError("targets names a column twice")
        if len(set(self.known_future)) != len(self.known_future):
            raise ValueError("known_future names a column twice")
        if both := set(self.targets or ()).intersection(self.known_future):
            raise ValueError(f"column {min(both)!r} cannot be both a target and known_future; name it in one of them")
        return self
