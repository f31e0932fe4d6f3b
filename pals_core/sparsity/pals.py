"""PALS: the validation loss decides whether the network shrinks, expands or stays (arXiv 2305.18382)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pals_core.sparsity.allocation import allocate
from pals_core.sparsity.decision import Best, decide, updated_best
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.method import Decision, MaskChange
from pals_core.sparsity.prune_grow import exchange_counts, grow_largest, prune_smallest
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.spec import PalsMethodSpec


class PalsController:
    """Prunes and regrows the masks every Δt steps (arXiv 2305.18382, Algorithm 1)."""

    def __init__(self, spec: PalsMethodSpec, masks: MaskSet, schedule: UpdateSchedule, *, seed: int) -> None:
        """Take charge of `masks`; a density below 1 starts them sparse at positions drawn from `seed`."""
        self.spec = spec
        self.masks = masks
        self.schedule = schedule
        self.best: Best | None = None
        if spec.initial_density < 1:
            active = allocate(masks.shapes, spec.initial_density, spec.initial_allocation)
            masks.start_sparse(active, torch.Generator().manual_seed(seed))

    def decide(self, step: int, measure_loss: Callable[[], float]) -> Decision | None:
        if not self.schedule.is_update(step):
            return None
        loss, sparsity, best = measure_loss(), self.masks.sparsity, self.best
        move = decide(loss, sparsity, best, self.spec)
        self.best = updated_best(loss, sparsity, best)
        return Decision(step, move, loss, best, sparsity, self.schedule.rate_at(step))

    @torch.no_grad()
    def update(self, decision: Decision) -> MaskChange:
        """Prune by magnitude, then grow by the gradient of this step's minibatch; raises ValueError without one."""
        pruned = grown = 0
        for name, active in self.masks.active.items():
            parameter, mask = self.masks.parameter(name), self.masks[name]
            if parameter.grad is None:
                raise ValueError(f"{name} has no gradient to grow by")
            prune, grow = exchange_counts(
                decision.move, active, mask.numel() - active, decision.prune_rate, self.spec.prune_rate_factor
            )
            pruned_mask = prune_smallest(parameter, mask, prune)
            self.masks[name] = grow_largest(parameter.grad, pruned_mask, grow)
            pruned, grown = pruned + prune, grown + grow
        return MaskChange(pruned, grown, self.masks.sparsity)

    def is_frozen(self, step: int) -> bool:
        return self.schedule.is_frozen(step)

    def state_dict(self) -> dict[str, Any]:
        return {"best": None if self.best is None else {"loss": self.best.loss, "sparsity": self.best.sparsity}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = None if state["best"] is None else Best(**state["best"])
