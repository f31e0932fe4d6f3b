"""Which epoch is the best, and when to stop: rules on plain numbers, free of torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import Field

from pals_core.checkpoint.header_part import HeaderPart
from pals_core.spec import FrozenSpec, PalsMethodSpec, TargetMethodSpec

# A sparsity is a quotient of whole numbers, a target a decimal fraction.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Goal:
    """The sparsity an epoch must have reached to be the best of its training.

    `awaited`: it is sure to be reached, and the training does not stop before. `advice` says what else helps.
    """

    sparsity: float
    awaited: bool
    advice: str = ""

    def is_reached(self, sparsity: float) -> bool:
        return sparsity >= self.sparsity - _ROUNDING


def goal_of(method: FrozenSpec) -> Goal:
    """Return the goal of a method's spec: PALS's S_min, a target, or none."""
    if isinstance(method, PalsMethodSpec):
        advice = "a smaller update_interval, more epochs or a larger prune_rate_factor prune further"
        return Goal(method.min_sparsity, awaited=False, advice=advice)
    if isinstance(method, TargetMethodSpec):
        return Goal(method.sparsity, awaited=True, advice="a smaller update_interval or more epochs give it updates")
    return Goal(0.0, awaited=False)


class BestSoFar(HeaderPart):
    """The best epoch so far; 0 before there is one, which then has no loss."""

    epoch: int = Field(ge=0)
    loss: float | None
    reached_target: bool


class StoppingSoFar(HeaderPart):
    """The lowest validation loss that counted so far, and the epochs since."""

    lowest: float | None
    without: int = Field(ge=0)


class BestEpoch:
    """The epoch of lowest validation loss among those that reached the goal; among all while none did.

    The first one that reaches it replaces a denser one whatever its loss.
    """

    def __init__(self, goal: Goal) -> None:
        self.goal = goal
        self.epoch = 0
        self.reached_target = False
        self._loss = math.inf

    def offer(self, epoch: int, loss: float, sparsity: float) -> bool:
        """Return whether `epoch` is the best so far."""
        reached = self.goal.is_reached(sparsity)
        better = loss < self._loss if reached == self.reached_target else reached
        if better:
            self.epoch, self._loss, self.reached_target = epoch, loss, reached
        return better

    def state(self) -> BestSoFar:
        return BestSoFar(epoch=self.epoch, loss=self._loss if self.epoch else None, reached_target=self.reached_target)

    def load(self, state: BestSoFar) -> None:
        self.epoch, self.reached_target = state.epoch, state.reached_target
        self._loss = math.inf if state.loss is None else state.loss


class EarlyStopping:
    """Stops after `patience` epochs without a lower validation loss.

    As published, it looks at the validation loss of every epoch, whatever its sparsity, and so does not wait for PALS's
    S_min: an epoch may be the lowest here and yet too dense to be the best. Where the goal is awaited, epochs before it
    do not count.
    """

    def __init__(self, patience: int, goal: Goal) -> None:
        self.patience = patience
        self.goal = goal
        self._lowest = math.inf
        self._without = 0

    @property
    def is_due(self) -> bool:
        return self._without >= self.patience

    def offer(self, loss: float, sparsity: float) -> None:
        """Take one epoch's validation loss into account."""
        if self.goal.awaited and not self.goal.is_reached(sparsity):
            return
        if loss < self._lowest:
            self._lowest, self._without = loss, 0
        else:
            self._without += 1

    def state(self) -> StoppingSoFar:
        return StoppingSoFar(lowest=self._lowest if math.isfinite(self._lowest) else None, without=self._without)

    def load(self, state: StoppingSoFar) -> None:
        self._lowest = math.inf if state.lowest is None else state.lowest
        self._without = state.without
