"""Gradual magnitude pruning along a cubic, without regrowth (Zhu & Gupta, arXiv 1710.01878)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pals_core.sparsity.allocation import active_count, allocate, shrink_towards
from pals_core.sparsity.decision import Move
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.method import Decision, MaskChange, WithoutState
from pals_core.sparsity.prune_grow import prune_smallest, prune_smallest_of_all
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.spec import Allocation, GmpMethodSpec, PruneAllocation


class GmpController(WithoutState):
    """Prunes the smallest weights at every update, down to the sparsity of the cubic (section 3, equation 1)."""

    def __init__(self, spec: GmpMethodSpec, masks: MaskSet, schedule: UpdateSchedule, *, seed: int) -> None:  # noqa: ARG002
        self.spec = spec
        self.masks = masks
        self.schedule = schedule

    def decide(self, step: int, measure_loss: Callable[[], float]) -> Decision | None:  # noqa: ARG002
        if not self.schedule.is_update(step):
            return None
        return Decision(step, Move.SHRINK, None, None, self.masks.sparsity, 0.0)

    @torch.no_grad()
    def update(self, decision: Decision) -> MaskChange:
        density = 1 - self.schedule.sparsity_at(decision.step, initial=0.0, final=self.spec.sparsity)
        before = self.masks.active
        if self.spec.allocation is PruneAllocation.GLOBAL:
            wanted = active_count(density, self.masks.maskable_parameters)
            prune_smallest_of_all(self.masks, max(0, sum(before.values()) - wanted))
        else:
            share = allocate(self.masks.shapes, density, Allocation(self.spec.allocation))
            for name, kept in shrink_towards(before, share).items():
                mask = self.masks[name]
                self.masks[name] = prune_smallest(self.masks.parameter(name), mask, before[name] - kept)
        pruned = sum(before.values()) - sum(self.masks.active.values())
        return MaskChange(pruned, 0, self.masks.sparsity)

    def is_frozen(self, step: int) -> bool:
        return self.schedule.is_frozen(step)
