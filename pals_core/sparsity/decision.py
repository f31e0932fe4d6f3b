"""What an update does to the network: a pure rule on two losses and two sparsities, free of torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from pals_core.spec import PalsMethodSpec


class Move(StrEnum):
    """What an update does to the network (arXiv 2305.18382, Algorithm 1)."""

    SHRINK = "shrink"
    EXPAND = "expand"
    STABLE = "stable"


@dataclass(frozen=True)
class Best:
    """The lowest decision loss so far and the sparsity at which it was seen."""

    loss: float
    sparsity: float


def decide(loss: float, sparsity: float, best: Best | None, spec: PalsMethodSpec) -> Move:
    """Return the move for a validation `loss` at `sparsity`; `best` is None before the first decision.

    A missing best counts as an infinite loss. A NaN loss compares false with everything, so that it
    never shrinks a network beyond `min_sparsity` (arXiv 2305.18382, Algorithm 1). With `expand` off a network that
    would expand stays stable.
    """
    if sparsity < spec.min_sparsity:
        return Move.SHRINK
    tolerated = math.inf if best is None else spec.loss_tolerance * best.loss
    if loss <= tolerated and sparsity < spec.max_sparsity:
        return Move.SHRINK
    if spec.expand and best is not None and loss > tolerated and sparsity > best.sparsity:
        return Move.EXPAND
    return Move.STABLE


def updated_best(loss: float, sparsity: float, best: Best | None) -> Best | None:
    """Return the best after a decision; only a strictly lower loss replaces it, NaN and infinity never do."""
    if loss < (math.inf if best is None else best.loss):
        return Best(loss, sparsity)
    return best
