"""What a model card takes from the JSON document of an evaluation: errors by horizon step."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Part(BaseModel):
    """Immutable; the document says more than is read here."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Errors(_Part):
    mse: tuple[float | None, ...] = Field(min_length=1)
    mae: tuple[float | None, ...] = Field(min_length=1)


class _Scaled(_Part):
    scaled: _Errors


class ErrorsByStep(_Part):
    """The mean errors of one kind of forecast, a number for each horizon step, in scaled units; null where unknown."""

    by_step: _Scaled

    @property
    def mse(self) -> tuple[float | None, ...]:
        return self.by_step.scaled.mse

    @property
    def mae(self) -> tuple[float | None, ...]:
        return self.by_step.scaled.mae


class StepErrors(_Part):
    """Errors by horizon step of a forecaster and of the seasonal naive forecast of the same windows."""

    forecaster: ErrorsByStep
    naive: ErrorsByStep | None = None

    @property
    def steps(self) -> int:
        return len(self.forecaster.mse)

    @model_validator(mode="after")
    def _of_equal_length(self) -> StepErrors:
        kinds = (self.forecaster,) if self.naive is None else (self.forecaster, self.naive)
        if any(len(errors) != self.steps for kind in kinds for errors in (kind.mse, kind.mae)):
            raise ValueError("the errors are not all of as many horizon steps")
        return self
