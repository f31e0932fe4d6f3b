"""Weights that make room for others: the update that PALS, GraNet, RigL and SET have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pals_core.sparsity.decision import Move
from pals_core.sparsity.growth import GrowthScores
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.method import Decision, MaskChange
from pals_core.sparsity.prune_grow import exchange_counts, grow_largest, prune_smallest
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.sparsity.tensor_threads import results_of


@torch.no_grad()
def exchange(
    masks: MaskSet, scores: Callable[[str], Tensor], *, rate: float, move: Move = Move.STABLE, factor: float = 1.0
) -> MaskChange:
    """In each tensor switch off the share `rate` of smallest active weights, then on those of the largest score.

    As many grow as are cut, or as `move` and `factor` γ say; one that was cut may grow again and keeps its value.
    """
    counts = {
        name: exchange_counts(move, active, masks[name].numel() - active, rate, factor)
        for name, active in masks.active.items()
    }

    def exchanged(name: str, score: Tensor, prune: int, grow: int) -> Tensor:
        return grow_largest(score, prune_smallest(masks.parameter(name).detach(), masks[name], prune), grow)

    # Scores are asked for in turn, since random ones are drawn one after the other.
    tasks = (partial(exchanged, name, scores(name), *counts[name]) for name in counts)
    for name, mask in zip(counts, results_of(tasks, masks.device), strict=True):
        masks[name] = mask
    pruned, grown = (sum(count[which] for count in counts.values()) for which in (0, 1))
    return MaskChange(pruned, grown, masks.sparsity)


class ScheduledExchange:
    """An exchange of weights at every update of a schedule, by growth scores that see the gradients of every step."""

    move = Move.STABLE

    def __init__(self, masks: MaskSet, schedule: UpdateSchedule, scores: GrowthScores) -> None:
        self.masks = masks
        self.schedule = schedule
        self.scores = scores

    def decide(self, step: int, measure_loss: Callable[[], float]) -> Decision | None:  # noqa: ARG002
        if self.schedule.is_frozen(step - 1):
            return None
        self.scores.observe()
        if not self.schedule.is_update(step):
            return None
        return Decision(step, self.move, None, None, self.masks.sparsity, self.schedule.rate_at(step))

    def update(self, decision: Decision) -> MaskChange:
        return exchange(self.masks, self.scores, rate=decision.prune_rate)

    def is_frozen(self, step: int) -> bool:
        return self.schedule.is_frozen(step)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def state_tensors(self) -> Mapping[str, Tensor]:
        return self.scores.state_tensors()

    def load_state(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        self.scores.load_state_tensors(tensors)
