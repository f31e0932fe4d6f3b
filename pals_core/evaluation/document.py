"""What an evaluation says, as plain data that travels as JSON; free of numpy, pandas and torch.

Every number is a mean over windows, horizon steps and columns that are not told apart; what is not known counts
nowhere, and what would be a mean of nothing is null. Lists have a number for each horizon step or column, in order.
"""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pals_core.checkpoint.header import Metrics, OriginalMetrics

Numbers = TypeVar("Numbers")
Known = float | None
Series = tuple[Known, ...]


class DocumentPart(BaseModel):
    """Immutable, refuses unknown fields, NaN and infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class UnitErrors(DocumentPart, Generic[Numbers]):
    """Errors in one kind of units."""

    mse: Numbers
    mae: Numbers
    rmse: Numbers = Field(description="The root of mse.")
    smape: Numbers = Field(
        description="200·|forecast − actual| / (|forecast| + |actual|), in per cent; 0 where both are 0."
    )


FIGURES = tuple(UnitErrors.model_fields)


class ErrorFigures(DocumentPart, Generic[Numbers]):
    """Errors in scaled units and in the data's own."""

    scaled: UnitErrors[Numbers]
    original: UnitErrors[Numbers]
    mase: Numbers | None = Field(
        description="Mean absolute errors as multiples of the seasonal naive forecast's over the training part, alike "
        "in all units; null where that is 0 or unknown."
    )


class ForecastErrors(DocumentPart):
    """The errors of one kind of forecast."""

    overall: ErrorFigures[float]
    by_step: ErrorFigures[Series]
    by_column: ErrorFigures[Series]
    by_column_and_step: ErrorFigures[tuple[Series, ...]] | None = Field(
        description="A list of steps for each column; null where there are more than 10,000 numbers of a kind."
    )


class IntervalCoverage(DocumentPart):
    """What share of the actual values lay inside of the prediction intervals of one level."""

    level: float = Field(description="In per cent.")
    coverage: float = Field(description="In per cent, over all known values.")
    by_step: Series
    by_column: Series
    mean_width_by_column: Series = Field(description="In the data's own units.")


class WindowInterval(DocumentPart):
    level: float
    lower: dict[str, Series]
    upper: dict[str, Series]


class WindowSample(DocumentPart):
    """One forecast, with what came, in the data's own units; of many columns the first."""

    rank: Literal["worst", "median", "best"] = Field(description="By the mean squared error in scaled units.")
    mse: float = Field(description="Over all its columns, in scaled units.")
    series: str | None = Field(description="The pooled series it is of; null where it is of all columns.")
    columns: tuple[str, ...]
    history_timestamps: tuple[str, ...]
    history: dict[str, Series]
    timestamps: tuple[str, ...]
    actual: dict[str, Series]
    forecast: dict[str, Series]
    naive: dict[str, Series]
    intervals: tuple[WindowInterval, ...]


class Evaluation(DocumentPart):
    """Errors of a forecaster over every window, beside those of the seasonal naive forecast of the same windows."""

    columns: tuple[str, ...] = Field(description="The targets, or the pooled series.")
    frequency: str
    horizon: int
    windows: int = Field(description="Forecasts that were compared with what came.")
    stride: int = Field(description="Time steps from one forecast to the next.")
    first_step: str = Field(description="First time step that was forecast.")
    last_step: str = Field(description="Last time step that was forecast.")
    season: int = Field(description="Steps that the seasonal naive forecast looks back.")
    forecaster: ForecastErrors
    naive: ForecastErrors
    calibration_residuals: int | None = Field(
        description="Validation residuals behind each quantile of the prediction intervals; null without intervals."
    )
    intervals: tuple[IntervalCoverage, ...] = Field(description="Of the default levels that these residuals allow.")
    samples: tuple[WindowSample, ...] = Field(description="The worst, the median and the best window.")

    @model_validator(mode="after")
    def _of_its_shape(self) -> Evaluation:
        for kind in (self.forecaster, self.naive):
            for numbers, count in ((kind.by_step, self.horizon), (kind.by_column, len(self.columns))):
                lists = [getattr(units, name) for units in (numbers.scaled, numbers.original) for name in FIGURES]
                if any(len(one) != count for one in (*lists, numbers.mase) if one is not None):
                    raise ValueError("a list of errors has not a number for each horizon step or column")
        return self

    @property
    def metrics(self) -> Metrics:
        """The mean errors that a checkpoint and a job's result carry."""
        overall = self.forecaster.overall
        original = OriginalMetrics(mse=overall.original.mse, mae=overall.original.mae)
        return Metrics(mse=overall.scaled.mse, mae=overall.scaled.mae, original=original)
