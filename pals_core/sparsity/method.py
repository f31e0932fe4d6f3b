"""What the training loop asks of a sparsity method, and which method a spec names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pals_core.sparsity.decision import Best, Move


@dataclass(frozen=True)
class Decision:
    """What one update is going to do, decided on the weights before the optimiser step."""

    step: int
    move: Move
    loss: float
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
        """Return what to do at `step`, or None; `measure_loss` evaluates the decision windows, at a cost."""

    def update(self, decision: Decision) -> MaskChange:
        """Change the masks by the present weights and gradients; the caller applies them."""

    def is_frozen(self, step: int) -> bool:
        """Return whether the masks stay as they are after `step`."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs beside the masks, as plain JSON data."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
