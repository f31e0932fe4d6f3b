"""What the training loop asks of a sparsity method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from pals_core.sparsity.decision import Best, Move


@dataclass(frozen=True)
class Decision:
    """What one update is going to do, decided on the weights before the optimiser step.

    `loss` and `best` are None for a method that decides without measuring; `prune_rate` is the share of active weights
    to be exchanged, 0 for a method that regrows nothing.
    """

    step: int
    move: Move
    loss: float | None
    best: Best | None
    sparsity: float
    prune_rate: float


@dataclass(frozen=True)
class MaskChange:
    """What one update did: weights pruned and grown, and the sparsity after it."""

    pruned: int
    grown: int
    sparsity: float


class SparsityMethod(Protocol):
    """Changes the masks of one training. The loop calls `decide` before and `update` after the optimiser step."""

    def decide(self, step: int, measure_loss: Callable[[], float]) -> Decision | None:
        """Return what to do at `step`, or None; `measure_loss` evaluates the decision windows, at a cost.

        Called at every step with the gradients in place.
        """

    def update(self, decision: Decision) -> MaskChange:
        """Change the masks by the present weights and gradients; the caller applies them."""

    def is_frozen(self, step: int) -> bool:
        """Return whether the masks stay as they are after `step`."""

    def state_dict(self) -> dict[str, Any]:
        """Return the plain JSON data that a resumed training needs beside the masks."""

    def state_tensors(self) -> Mapping[str, Tensor]:
        """Return the tensors that a resumed training needs beside the masks."""

    def load_state(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` and `state_tensors` gave."""


class WithoutState:
    """A method that a resumed training makes anew from spec and masks alone."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def state_tensors(self) -> Mapping[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        if state or tensors:
            raise ValueError(f"the method has no state, got {sorted([*state, *tensors])}")
