"""What a checkpoint file says about itself: plain data that travels as JSON, free of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from itertools import chain, pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pals_core.checkpoint.calibration import Calibration
from pals_core.checkpoint.header_part import HeaderPart
from pals_core.data.bins import bins_of
from pals_core.data.frequency import calendar_feature_names
from pals_core.data.lengths import window_lengths
from pals_core.errors import PalsError
from pals_core.sparsity.decision import Move
from pals_core.spec import Spec

# So many epochs of a training are told at most; a header stays small however long the training was.
MAX_TRACED_EPOCHS = 64
# By so much a variant may raise the test MSE and still take the place of the full precision.
MAX_MSE_CHANGE = 0.01


class OriginalMetrics(HeaderPart):
    mse: float
    mae: float


class Metrics(HeaderPart):
    """Mean errors over every test window, in scaled units and in the data's own."""

    mse: float
    mae: float
    original: OriginalMetrics


class MaskedLayer(HeaderPart):
    """One maskable parameter: what it is, how much of it is active, and what it costs."""

    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=2, max_length=8)
    dtype: Literal["float32", "complex64"]
    active: int = Field(ge=0)
    flops_dense: int = Field(ge=0, description="FLOPs of one forecast with every weight on, over all its uses.")
    bytes: int = Field(ge=0, description="What the file keeps of it: active values, their scales and positions.")

    @property
    def weights(self) -> int:
        return math.prod(self.shape)

    @property
    def sparsity(self) -> float:
        return 1 - self.active / self.weights

    @property
    def flops_sparse(self) -> int:
        """FLOPs of one forecast when a weight that is off costs nothing: each weight multiplies equally often."""
        return self.flops_dense * self.active // self.weights


class ProductKind(StrEnum):
    """What is computed without a weight: products of matrices, such as attention's, or Fourier transforms."""

    MATRIX = "matrix"
    FOURIER = "fourier"


class Product(HeaderPart):
    """What one forecast computes in a module without a weight, and so costs the same dense and sparse."""

    module: str
    kind: ProductKind
    flops: int = Field(ge=0)


class NetworkCost(HeaderPart):
    """What a network and one forecast of it cost, by layer and in all; see `pals_core.flops` for what counts."""

    layers: dict[str, MaskedLayer] = Field(min_length=1, description="Every maskable parameter.")
    products: tuple[Product, ...] = Field(description="What is computed without a weight.")

    @property
    def active_parameters(self) -> int:
        """Active maskable weights."""
        return sum(layer.active for layer in self.layers.values())

    @property
    def maskable_parameters(self) -> int:
        return sum(layer.weights for layer in self.layers.values())

    @property
    def sparsity(self) -> float:
        """Share of maskable weights that are off."""
        return (self.maskable_parameters - self.active_parameters) / self.maskable_parameters

    @property
    def flops_dense(self) -> int:
        """FLOPs of one forecast if every weight were on."""
        return sum(layer.flops_dense for layer in self.layers.values()) + self._flops_of_products

    @property
    def flops_sparse(self) -> int:
        """FLOPs of one forecast when weights that are off cost nothing."""
        return sum(layer.flops_sparse for layer in self.layers.values()) + self._flops_of_products

    @property
    def bytes(self) -> int:
        """What a checkpoint keeps of the maskable weights."""
        return sum(layer.bytes for layer in self.layers.values())

    @property
    def totals(self) -> dict[str, int]:
        """Weights, active ones, FLOPs and bytes over all layers, by the names that each layer has them under."""
        return {
            "weights": self.maskable_parameters,
            "active": self.active_parameters,
            "flops_dense": self.flops_dense,
            "flops_sparse": self.flops_sparse,
            "bytes": self.bytes,
        }

    @property
    def _flops_of_products(self) -> int:
        return sum(product.flops for product in self.products)


class StoredPrecision(StrEnum):
    """Type of the active values in a file; all else is in fp32 in any file."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


Moves = dict[Move, Annotated[int, Field(ge=0)]]


class EpochSummary(HeaderPart):
    """Where a training stood at the end of an epoch."""

    epoch: int = Field(ge=1)
    step: int = Field(ge=1, description="Optimiser steps taken.")
    train_loss: float
    validation_loss: float
    sparsity: float = Field(ge=0, le=1)
    moves: Moves = Field(description="Mask updates so far, by what they did.")


def summary_of(epochs: Sequence[EpochSummary]) -> tuple[EpochSummary, ...]:
    """Return all epochs, or the first, the last and others evenly spread, 64 in all."""
    last, most = len(epochs) - 1, MAX_TRACED_EPOCHS - 1
    return tuple(epochs) if last <= most else tuple(epochs[last * place // most] for place in range(most + 1))


class CheckpointHeader(NetworkCost):
    """Everything but the numbers; nothing in it depends on clock, host or job."""

    format_version: Literal[1] = 1
    spec: Spec = Field(description="The resolved spec; it rebuilds the network.")
    columns: tuple[str, ...] = Field(min_length=1, description="The targets, or the pooled series.")
    frequency: str = Field(max_length=64)
    resampled_from: str | None = Field(None, max_length=64, description="The data's own frequency; null: the same.")
    calendar_features: tuple[str, ...]
    scaler_mean: tuple[float, ...]
    scaler_std: tuple[float, ...]
    known_future_mean: tuple[tuple[float, ...], ...] = Field(
        (), description="Of each known-future column, as learnt together with the targets, or with each pooled series."
    )
    known_future_std: tuple[tuple[float, ...], ...] = ()
    season: int = Field(ge=1, description="Steps that the seasonal naive forecast looks back.")
    naive_errors: tuple[Annotated[float, Field(gt=0)] | None, ...] = Field(
        description="Mean absolute error of that forecast over the training part, of each column in scaled units: what "
        "MASE is a multiple of; null where it is 0 or there is no season."
    )
    trace: tuple[EpochSummary, ...] = Field(
        min_length=1, max_length=MAX_TRACED_EPOCHS, description="The training up to this checkpoint, by epoch."
    )
    total_parameters: int = Field(ge=1)
    metrics: Metrics | None = Field(
        None, description="Test errors of the values as they are in this file; only of a training's best checkpoint."
    )
    calibration: Calibration | None = Field(
        None, description="For prediction intervals; only of a training's best checkpoint."
    )
    precision: StoredPrecision = StoredPrecision.FP32
    mse_change: float | None = Field(
        None,
        description="Test MSE in this precision over that in fp32, less 1; null in fp32, or when it was not measured.",
    )
    dataset_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    library_versions: dict[str, str]

    @property
    def epoch(self) -> int:
        return self.trace[-1].epoch

    @property
    def step(self) -> int:
        """Optimiser steps taken."""
        return self.trace[-1].step

    @property
    def validation_loss(self) -> float:
        return self.trace[-1].validation_loss

    @property
    def may_be_default(self) -> bool:
        """Whether who asks for no precision may be given this file: fp32, or measured to be at most 1 % worse."""
        if self.precision is StoredPrecision.FP32:
            return True
        return self.mse_change is not None and self.mse_change <= MAX_MSE_CHANGE

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The columns that go through the network together: all of them, or each pooled series by itself."""
        return tuple((name,) for name in self.columns) if self.spec.data.pooled else (self.columns,)

    @property
    def features(self) -> int:
        """How many calendar features and known-future columns the network reads."""
        return len(self.calendar_features) + len(self.spec.data.known_future)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> CheckpointHeader:
        try:
            window_lengths(self.spec.data)
            features = calendar_feature_names(self.frequency)
            resampled = self._resampled_frequency()
        except PalsError as error:
            raise ValueError(error.message) from error
        if self.calendar_features != tuple(features):
            raise ValueError(f"the calendar features are not those of frequency {self.frequency!r}")
        if resampled != self.frequency:
            raise ValueError(f"the frequency {self.frequency!r} is not the one its spec resamples to")
        if self.spec.data.series is None:
            raise ValueError("the spec leaves open whether series are joint or pooled")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("a column is named twice")
        if set(self.columns).intersection(self.spec.data.known_future):
            raise ValueError("a column is both a target and known_future")
        if not len(self.columns) == len(self.scaler_mean) == len(self.scaler_std):
            raise ValueError("columns and scaler differ in length")
        if len(self.naive_errors) != len(self.columns):
            raise ValueError("columns and naive errors differ in length")
        if self.calibration is not None:
            self.calibration.check(self.spec.data.horizon, len(self.groups[0]))
        known_future = len(self.spec.data.known_future)
        shape = [known_future] * len(self.groups) if known_future else []
        if not shape == [*map(len, self.known_future_mean)] == [*map(len, self.known_future_std)]:
            raise ValueError("known-future columns and their scaler differ in length")
        stds = chain(self.scaler_std, *self.known_future_std)
        if not all(std > 0 and math.isfinite(1 / std) for std in stds):
            raise ValueError("a standard deviation is not positive")
        if any(layer.active > layer.weights for layer in self.layers.values()):
            raise ValueError("a layer has more active weights than weights")
        if self.mse_change is not None and self.precision is StoredPrecision.FP32:
            raise ValueError("a checkpoint in fp32 has no change of its MSE")
        if any(later.epoch <= earlier.epoch or later.step <= earlier.step for earlier, later in pairwise(self.trace)):
            raise ValueError("the epochs of the training are not in order")
        return self

    def _resampled_frequency(self) -> str:
        """The frequency that spec and original frequency give; raises InvalidSpec."""
        resample = self.spec.data.resample
        if (resample is None) != (self.resampled_from is None):
            raise ValueError("only a checkpoint of resampled data has an original frequency")
        if resample is None or self.resampled_from is None:
            return self.frequency
        return bins_of(resample.frequency, self.resampled_from).frequency
