"""PALS: the validation loss decides whether the network shrinks, expands or stays (arXiv 2305.18382)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pals_core.sparsity.allocation import allocate
from pals_core.sparsity.decision import Best, decide, updated_best
from pals_core.sparsity.exchange import exchange
from pals_core.sparsity.growth import GradientScores
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.method import Decision, MaskChange
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.spec import PalsMethodSpec


class PalsController:
    """Prunes and regrows the masks every Δt steps (arXiv 2305.18382, Algorithm 1)."""

    def __init__(self, spec: PalsMethodSpec, masks: MaskSet, schedule: UpdateSchedule, *, seed: int) -> None:
        """Take charge of `masks`; a density below 1 starts them sparse at positions drawn from `seed`."""
        self.spec = spec
        self.masks = masks
        self.schedule = schedule
        self.scores = GradientScores(masks)
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

    def update(self, decision: Decision) -> MaskChange:
        """Prune by magnitude, then grow by the gradient of this step's minibatch; raises ValueError without one."""
        return exchange(
            self.masks,
            self.scores,
            rate=decision.prune_rate,
            move=decision.move,
            factor=self.spec.prune_rate_factor,
        )

    def is_frozen(self, step: int) -> bool:
        return self.schedule.is_frozen(step)

    def state_dict(self) -> dict[str, Any]:
        return {"best": None if self.best is None else {"loss": self.best.loss, "sparsity": self.best.sparsity}}

    def state_tensors(self) -> Mapping[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        best = state["best"]
        self.best = None if best is None else Best(loss=float(best["loss"]), sparsity=float(best["sparsity"]))
