"""The ways to become sparse."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from pals_core.spec.frozen import FrozenSpec, name_alone


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
    Field(gt=0, le=1, description="T_end: the masks freeze with epoch ⌊f·E⌋ + 1 of the E planned; this is f."),
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
        32, ge=1, le=1_000_000, description="Evenly spaced validation windows whose loss decides an update."
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
        if self.initial_density + self.sparsity < 1 - 1e-9:  # 1 - 0.7 is a little more than 0.3
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


MethodSpec = Annotated[
    UpdatingMethodSpec | StaticMethodSpec | DenseMethodSpec, Field(discriminator="name"), BeforeValidator(name_alone)
]


METHOD_SPECS: tuple[type[FrozenSpec], ...] = (
    PalsMethodSpec,
    DenseMethodSpec,
    GranetMethodSpec,
    GmpMethodSpec,
    RiglMethodSpec,
    SetMethodSpec,
    StaticMethodSpec,
)
