"""GraNet: gradual pruning with zero-cost neuroregeneration (Liu et al., arXiv 2106.10404)."""

from __future__ import annotations

import torch

from pals_core.sparsity.allocation import active_count, allocate
from pals_core.sparsity.decision import Move
from pals_core.sparsity.exchange import ScheduledExchange
from pals_core.sparsity.growth import growth_scores
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.method import Decision, MaskChange
from pals_core.sparsity.prune_grow import prune_smallest_of_all
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.spec import GranetMethodSpec


class GranetController(ScheduledExchange):
    """At every update prunes the whole network down to the cubic's sparsity, then exchanges weights in each tensor.

    Both end with the last update (section 4); a weight cut by either step may grow again at once and keeps its value.
    """

    move = Move.SHRINK

    def __init__(self, spec: GranetMethodSpec, masks: MaskSet, schedule: UpdateSchedule, *, seed: int) -> None:
        """Take charge of `masks`; a density below 1 starts them sparse at positions drawn from `seed`."""
        generator = torch.Generator().manual_seed(seed)
        super().__init__(masks, schedule, growth_scores(spec.growth, masks, generator))
        self.spec = spec
        if spec.initial_density < 1:
            masks.start_sparse(allocate(masks.shapes, spec.initial_density, spec.initial_allocation), generator)

    def update(self, decision: Decision) -> MaskChange:
        sparsity = self.schedule.sparsity_at(decision.step, 1 - self.spec.initial_density, self.spec.sparsity)
        wanted = active_count(1 - sparsity, self.masks.maskable_parameters)
        surplus = max(0, sum(self.masks.active.values()) - wanted)
        prune_smallest_of_all(self.masks, surplus)
        exchanged = super().update(decision)
        return MaskChange(surplus + exchanged.pruned, exchanged.grown, exchanged.sparsity)
