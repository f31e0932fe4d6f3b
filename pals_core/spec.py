"""The training spec: what to forecast, with which model, sparsified how, trained how.

One source for the library, the worker, the HTTP API and the documentation: each field carries its
default, its range and a sentence. A field whose default depends on the data is None here and is
filled by `pals_core.feasibility.resolve`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class FrozenSpec(BaseModel):
    """Immutable, refuses unknown fields, NaN and infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- data -----------------------------------------------------------------------------------------


class MissingPolicy(StrEnum):
    ERROR = "error"
    INTERPOLATE = "interpolate"
    FFILL = "ffill"


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


class DataSpec(FrozenSpec):
    """Which columns, how much history, how far ahead."""

    targets: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Columns (or series ids of a long table) to learn and forecast; null takes all numeric ones.",
    )
    known_future: tuple[str, ...] = Field(
        (), max_length=0, description="Columns whose future is known; none can be named yet."
    )
    series: Literal["joint"] = Field("joint", description="All columns are one multivariate window.")
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
        description="What to do about missing values and time steps: refuse, interpolate, or repeat the last value; "
        "each part of the split is filled from itself alone.",
    )

    @model_validator(mode="after")
    def _label_within_input(self) -> DataSpec:
        if self.label_len is not None and self.input_len is not None and self.label_len > self.input_len:
            raise ValueError(f"label_len {self.label_len} is longer than input_len {self.input_len}")
        if self.targets is not None and len(set(self.targets)) != len(self.targets):
            raise ValueError("targets names a column twice")
        return self


# --- models ---------------------------------------------------------------------------------------


class ForecasterSpec(FrozenSpec):
    """Sizes shared by the transformer forecasters; the defaults are the paper's."""

    d_model: int = Field(512, ge=2, le=8192, multiple_of=2, description="Width of the residual stream.")
    d_ff: int = Field(2048, ge=1, le=32768, description="Width of the feed-forward layers.")
    heads: int = Field(8, ge=1, le=128, description="Attention heads; must divide d_model.")
    encoder_layers: int = Field(2, ge=1, le=32, description="Layers of the encoder.")
    decoder_layers: int = Field(1, ge=1, le=32, description="Layers of the decoder.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Share of activations dropped in training.")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ForecasterSpec:
        if self.d_model % self.heads:
            raise ValueError(f"heads {self.heads} does not divide d_model {self.d_model}")
        return self


class TransformerSpec(ForecasterSpec):
    """Vanilla encoder–decoder Transformer with calendar embedding."""

    name: Literal["transformer"] = "transformer"


class NSTransformerSpec(ForecasterSpec):
    """Non-stationary Transformer: per-window standardisation and de-stationary attention (arXiv 2205.14415)."""

    name: Literal["nstransformer"] = "nstransformer"
    projector_hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (32, 32), min_length=1, max_length=8, description="Hidden sizes of the two projectors that learn τ and Δ."
    )


class DLinearSpec(FrozenSpec):
    """Trend and remainder, one linear layer each (arXiv 2205.13504)."""

    name: Literal["dlinear"] = "dlinear"
    moving_avg: int = Field(25, ge=1, le=9999, description="Odd length of the moving average that separates the trend.")
    per_column: bool = Field(False, description="One pair of linear layers per column instead of a shared pair.")

    @model_validator(mode="after")
    def _odd_kernel(self) -> DLinearSpec:
        if self.moving_avg % 2 == 0:
            raise ValueError(f"moving_avg {self.moving_avg} is even; the moving average needs an odd length")
        return self


# --- methods --------------------------------------------------------------------------------------


class Allocation(StrEnum):
    ERK = "erk"
    UNIFORM = "uniform"


class PruneAllocation(StrEnum):
    GLOBAL = "global"
    UNIFORM = "uniform"
    ERK = "erk"


class Growth(StrEnum):
    GRADIENT = "gradient"
    RANDOM = "random"
    MOMENTUM = "momentum"


TargetSparsity = Annotated[
    float, Field(gt=0, lt=1, description="S_f: share of maskable weights that are off in the end.")
]
UpdateInterval = Annotated[
    int | None,
    Field(ge=1, le=1_000_000, description="Δt: optimiser steps between updates; 20, at most a quarter of an epoch."),
]
FinalUpdateFraction = Annotated[
    float,
    Field(gt=0, le=1, description="T_end: share of the planned epochs after which the masks are frozen."),
]
InitialDensity = Annotated[float, Field(gt=0, le=1, description="D_init: share of weights active at the start.")]
StartAllocation = Annotated[Allocation, Field(description="How a sparse start spreads its weights over the layers.")]
GrowthCriterion = Annotated[
    Growth,
    Field(
        description="Which inactive weights grow: those of the largest gradient of this minibatch, any, or those of "
        "the largest gradient averaged over steps."
    ),
]


class PalsMethodSpec(FrozenSpec):
    """PALS: the validation loss decides whether the network shrinks, expands or stays (arXiv 2305.18382)."""

    name: Literal["pals"] = "pals"
    prune_rate_factor: float = Field(
        1.1, gt=1, le=10, description="γ: how much faster to prune (shrink) or grow (expand) than to stay stable."
    )
    loss_tolerance: float = Field(1.1, ge=1, le=100, description="λ: allowed loss relative to the best seen.")
    prune_rate: float = Field(
        0.5, gt=0, lt=1, description="ζ₀: initial share of active weights exchanged at an update; cosine-decayed."
    )
    prune_rate_min: float = Field(0.005, ge=0, lt=1, description="ζ_min: where the cosine ends.")
    update_interval: UpdateInterval = None
    min_sparsity: float = Field(0.2, ge=0, lt=1, description="S_min: below it, always shrink.")
    max_sparsity: float = Field(0.9, gt=0, lt=1, description="S_max: at or above it, never shrink.")
    expand: bool = Field(True, description="Off: where the network would expand it stays (the paper's ablation).")
    final_update_fraction: FinalUpdateFraction = 2 / 3
    initial_density: InitialDensity = 1.0
    initial_allocation: StartAllocation = Allocation.ERK
    decision_windows: int = Field(
        256, ge=1, le=1_000_000, description="Evenly spaced validation windows whose loss decides an update."
    )

    @model_validator(mode="after")
    def _ranges_in_order(self) -> PalsMethodSpec:
        if self.min_sparsity > self.max_sparsity:
            raise ValueError(f"min_sparsity {self.min_sparsity:g} exceeds max_sparsity {self.max_sparsity:g}")
        _check_rates(self.prune_rate, self.prune_rate_min)
        if self.prune_rate * self.prune_rate_factor >= 1:
            raise ValueError(
                f"prune_rate × prune_rate_factor is {self.prune_rate * self.prune_rate_factor:g}; "
                "at 1 or more a shrink would empty the network"
            )
        return self


class GranetMethodSpec(FrozenSpec):
    """GraNet: gradual global magnitude pruning to a target, each update also regrowing (arXiv 2106.10404)."""

    name: Literal["granet"] = "granet"
    sparsity: TargetSparsity = 0.8
    prune_rate: float = Field(
        0.5, gt=0, lt=1, description="ζ₀: share of a layer's active weights exchanged at an update; cosine-decayed."
    )
    prune_rate_min: float = Field(0.005, ge=0, lt=1, description="ζ_min: where the cosine ends.")
    growth: GrowthCriterion = Growth.GRADIENT
    update_interval: UpdateInterval = None
    final_update_fraction: FinalUpdateFraction = 2 / 3
    initial_density: InitialDensity = 1.0
    initial_allocation: StartAllocation = Allocation.ERK

    @model_validator(mode="after")
    def _ranges_in_order(self) -> GranetMethodSpec:
        _check_rates(self.prune_rate, self.prune_rate_min)
        if self.initial_density < 1 - self.sparsity:
            raise ValueError(
                f"initial_density {self.initial_density:g} starts sparser than sparsity {self.sparsity:g} asks for"
            )
        return self


class GmpMethodSpec(FrozenSpec):
    """Gradual magnitude pruning from dense to a target along a cubic, by Zhu & Gupta (arXiv 1710.01878)."""

    name: Literal["gmp"] = "gmp"
    sparsity: TargetSparsity = 0.8
    allocation: PruneAllocation = Field(
        PruneAllocation.UNIFORM,
        description="What is pruned to the target: every layer alike, layers by ERK, or the network as a whole.",
    )
    update_interval: UpdateInterval = None
    final_update_fraction: FinalUpdateFraction = 2 / 3


class RiglMethodSpec(FrozenSpec):
    """RigL by Evci et al.: constant density from a sparse start, grown by the gradient (arXiv 1911.11134)."""

    name: Literal["rigl"] = "rigl"
    sparsity: TargetSparsity = 0.8
    allocation: StartAllocation = Allocation.ERK
    prune_rate: float = Field(
        0.3, gt=0, lt=1, description="α: share of active weights exchanged at first; a cosine takes it to 0 at T_end."
    )
    growth: GrowthCriterion = Growth.GRADIENT
    update_interval: UpdateInterval = None
    final_update_fraction: FinalUpdateFraction = 0.75


class SetMethodSpec(FrozenSpec):
    """SET by Mocanu et al. 2018: constant density from a sparse start, grown at random (arXiv 1707.04780)."""

    name: Literal["set"] = "set"
    sparsity: TargetSparsity = 0.8
    allocation: StartAllocation = Allocation.ERK
    prune_rate: float = Field(0.3, gt=0, lt=1, description="ζ: share of active weights exchanged at each update.")
    update_interval: UpdateInterval = None
    final_update_fraction: FinalUpdateFraction = 0.75


class StaticMethodSpec(FrozenSpec):
    """Static sparse training: a random mask that never changes, the baseline of SET (arXiv 1707.04780)."""

    name: Literal["static"] = "static"
    sparsity: TargetSparsity = 0.8
    allocation: StartAllocation = Allocation.ERK


class DenseMethodSpec(FrozenSpec):
    """No pruning: the dense baseline."""

    name: Literal["dense"] = "dense"


def _check_rates(first: float, last: float) -> None:
    if last > first:
        raise ValueError(f"prune_rate_min {last:g} exceeds prune_rate {first:g}")


# Those that change masks on a schedule.
UpdatingMethodSpec: TypeAlias = PalsMethodSpec | GranetMethodSpec | GmpMethodSpec | RiglMethodSpec | SetMethodSpec

# Those that are given the sparsity they end at.
TargetMethodSpec: TypeAlias = GranetMethodSpec | GmpMethodSpec | RiglMethodSpec | SetMethodSpec | StaticMethodSpec


# --- training -------------------------------------------------------------------------------------


class Precision(StrEnum):
    AUTO = "auto"
    FP32 = "fp32"


class DeviceChoice(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Optimizer(StrEnum):
    ADAM = "adam"
    ADAMW = "adamw"


class LearningRateSchedule(StrEnum):
    HALVING = "halving"
    COSINE = "cosine"
    CONSTANT = "constant"


class TrainingSpec(FrozenSpec):
    """The optimisation recipe; the defaults are the paper's: Adam, its rate halved every epoch from the third on."""

    epochs: int = Field(10, ge=1, le=10_000, description="Most passes over the training windows.")
    patience: int = Field(3, ge=1, le=10_000, description="Epochs without a better validation loss before stopping.")
    batch_size: int = Field(32, ge=1, le=65_536, description="Windows per optimiser step.")
    optimizer: Optimizer = Field(Optimizer.ADAM, description="Adam, or AdamW, which also decays weights.")
    weight_decay: float | None = Field(
        None, ge=0, le=1, description="Share of the learning rate by which AdamW decays weights; 0.01 unless given."
    )
    learning_rate: float = Field(1e-4, gt=0, le=10, description="The optimiser's step size, before its schedule.")
    schedule: LearningRateSchedule = Field(
        LearningRateSchedule.HALVING,
        description="Halve the learning rate every epoch from the third on, take it along a cosine to 0, or keep it.",
    )
    warmup_steps: int = Field(
        0, ge=0, le=10_000_000, description="Steps in which the learning rate rises in equal steps to its schedule."
    )
    gradient_clip: float | None = Field(
        None, gt=0, le=1e6, description="Largest norm of the gradient of the active weights; null leaves it alone."
    )
    seed: int = Field(2020, ge=0, le=2**63 - 1, description="Seeds initial weights, shuffling and dropout.")
    precision: Precision = Field(Precision.AUTO, description="Arithmetic of forward and backward passes.")
    device: DeviceChoice = Field(DeviceChoice.AUTO, description="auto takes a GPU where the worker has one.")

    @model_validator(mode="after")
    def _decay_needs_adamw(self) -> TrainingSpec:
        if self.weight_decay is not None and self.optimizer is not Optimizer.ADAMW:
            raise ValueError(f"weight_decay is for adamw; the optimizer is {self.optimizer}")
        return self


def _named(value: Any) -> Any:
    """A bare string is short for that name with its defaults."""
    return {"name": value} if isinstance(value, str) else value


ModelSpec = Annotated[
    TransformerSpec | NSTransformerSpec | DLinearSpec, Field(discriminator="name"), BeforeValidator(_named)
]
MethodSpec = Annotated[
    UpdatingMethodSpec | StaticMethodSpec | DenseMethodSpec, Field(discriminator="name"), BeforeValidator(_named)
]

MODEL_SPECS: tuple[type[FrozenSpec], ...] = (NSTransformerSpec, TransformerSpec, DLinearSpec)
METHOD_SPECS: tuple[type[FrozenSpec], ...] = (
    PalsMethodSpec,
    DenseMethodSpec,
    GranetMethodSpec,
    GmpMethodSpec,
    RiglMethodSpec,
    SetMethodSpec,
    StaticMethodSpec,
)


class Spec(FrozenSpec):
    """A whole training: all but the horizon has a default."""

    data: DataSpec
    model: ModelSpec = Field(default_factory=NSTransformerSpec, description="The forecaster, or just its name.")
    method: MethodSpec = Field(default_factory=PalsMethodSpec, description="How it becomes sparse, or just its name.")
    training: TrainingSpec = Field(default_factory=TrainingSpec)
