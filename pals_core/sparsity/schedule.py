"""When masks are updated, when they freeze, and how much is exchanged at each update; free of torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pals_core.spec import (
    GmpMethodSpec,
    GranetMethodSpec,
    PalsMethodSpec,
    RiglMethodSpec,
    SetMethodSpec,
    UpdatingMethodSpec,
)


@dataclass(frozen=True)
class UpdateSchedule:
    """Update steps and prune rates of one training; steps count from 1.

    `interval` is Δt in optimiser steps, `final_fraction` the share of the planned epochs after which
    the masks are frozen, `rate` and `rate_min` the ends of the cosine (arXiv 2305.18382, section 4), `rate_steps` its
    length: all planned steps when None.
    """

    epochs: int
    steps_per_epoch: int
    interval: int
    final_fraction: float
    rate: float
    rate_min: float
    rate_steps: int | None = None

    @classmethod
    def of(cls, spec: UpdatingMethodSpec, *, epochs: int, steps_per_epoch: int) -> UpdateSchedule:
        """Return the schedule of a resolved `spec`; raises ValueError when `update_interval` is still open."""
        if spec.update_interval is None:
            raise ValueError("update_interval must be resolved before a schedule is made")
        schedule = cls(epochs, steps_per_epoch, spec.update_interval, spec.final_update_fraction, 0.0, 0.0)
        match spec:
            case PalsMethodSpec() | GranetMethodSpec():
                return replace(schedule, rate=spec.prune_rate, rate_min=spec.prune_rate_min)
            case RiglMethodSpec():
                return replace(
                    schedule, rate=spec.prune_rate, rate_steps=min(schedule.freeze_step, schedule.total_steps)
                )
            case SetMethodSpec():
                return replace(schedule, rate=spec.prune_rate, rate_min=spec.prune_rate)
            case GmpMethodSpec():
                return schedule

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    def updates(self) -> int:
        """How many updates happen if the training runs to its last epoch."""
        return min(self._end - 1, self.total_steps // self.interval)

    @property
    def freeze_step(self) -> int:
        """Updates happen before this step, (⌊f·E⌋ + 1)·N; it may lie beyond the last one."""
        # f is a rounded fraction: without the allowance a product such as 2/3·E could fall just below its integer.
        return (math.floor(self.final_fraction * self.epochs + 1e-9) + 1) * self.steps_per_epoch

    @property
    def longest_interval(self) -> int:
        """The largest interval with which at least one update happens; 0 when none does with any."""
        return min(self.freeze_step // 2, self.total_steps)

    @property
    def _end(self) -> int:
        """The first multiple of the interval, t/Δt = ⌊(⌊f·E⌋ + 1)·N/Δt⌋, at which nothing is updated any more."""
        return max(1, self.freeze_step // self.interval)

    def is_update(self, step: int) -> bool:
        return step % self.interval == 0 and step // self.interval < self._end

    def is_frozen(self, step: int) -> bool:
        """Return whether no update follows after `step`."""
        return step // self.interval >= self.updates

    def rate_at(self, step: int) -> float:
        """Return ζ(t) = ζ_min + (ζ₀ − ζ_min)·(1 + cos(π·t/T))/2."""
        cosine = (1 + math.cos(math.pi * step / (self.rate_steps or self.total_steps))) / 2
        return self.rate_min + (self.rate - self.rate_min) * cosine

    def sparsity_at(self, step: int, initial: float, final: float) -> float:
        """Return S_f + (S_i − S_f)·(1 − k/K)³ after the last update up to `step`, the k-th of K (arXiv 1710.01878)."""
        if not self.updates:
            return initial
        done = min(step // self.interval, self.updates) / self.updates
        return final + (initial - final) * (1 - done) ** 3
