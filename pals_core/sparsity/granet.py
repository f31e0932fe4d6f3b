"""GraNet: gradual pruning with zero-cost neuroregeneration (Liu et al., arXiv 2106.10404)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pals_core.sparsity.allocation import active_count, allocate
from pals_core.sparsity.decision import Move
from pals_core.sparsity.exchange import exchange
from pals_core.sparsity.growth import growth_scores
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.method import Decision, MaskChange
from pals_core.sparsity.prune_grow import prune_smallest_of_all
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.spec import GranetMethodSpec


class GranetController:
    """At every update prunes the whole network down to the cubic's sparsity, then exchanges weights in each tensor.

    Both end with the last update (section 4); a weight cut by either step may grow again at once and keeps its value.
    """

    def __init__(self, spec: GranetMethodSpec, masks: MaskSet, schedule: UpdateSchedule, *, seed: int) -> None:
        """Take charge of `masks`; a density below 1 starts them sparse at positions drawn from `seed`."""
        self.spec = spec
        self.masks = masks
        self.schedule = schedule
        generator = torch.Generator().manual_seed(seed)
        self.scores = growth_scores(spec.growth, masks, generator)
        if spec.initial_density < 1:
            masks.start_sparse(allocate(masks.shapes, spec.initial_density, spec.initial_allocation), generator)

    def decide(self, step: int, measure_loss: Callable[[], float]) -> Decision | None:  # noqa: ARG002
        if self.schedule.is_frozen(step - 1):
            return None
        self.scores.observe()
        if not self.schedule.is_update(step):
            return None
        return Decision(step, Move.SHRINK, None, None, self.masks.sparsity, self.schedule.rate_at(step))

    def update(self, decision: Decision) -> MaskChange:
        sparsity = self.schedule.sparsity_at(decision.step, 1 - self.spec.initial_density, self.spec.sparsity)
        wanted = active_count(1 - sparsity, self.masks.maskable_parameters)
        surplus = max(0, sum(self.masks.active.values()) - wanted)
        prune_smallest_of_all(self.masks, surplus)
        exchanged = exchange(self.masks, self.scores, rate=decision.prune_rate)
        return MaskChange(surplus + exchanged.pruned, exchanged.grown, exchanged.sparsity)

    def is_frozen(self, step: int) -> bool:
        return self.schedule.is_frozen(step)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def state_tensors(self) -> Mapping[str, Tensor]:
        return self.scores.state_tensors()

    def load_state(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        self.scores.load_state_tensors(tensors)
