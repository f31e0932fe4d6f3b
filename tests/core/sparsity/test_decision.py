from __future__ import annotations

import math

import pytest

from pals_core.sparsity.decision import Best, Move, decide, updated_best
from pals_core.spec import PalsMethodSpec

SPEC = PalsMethodSpec(loss_tolerance=1.1, min_sparsity=0.2, max_sparsity=0.9)
BEST = Best(loss=1.0, sparsity=0.5)


@pytest.mark.parametrize(
    ("loss", "sparsity", "best", "move"),
    [
        pytest.param(5.0, 0.0, None, Move.SHRINK, id="the first decision shrinks a dense network"),
        pytest.param(5.0, 0.3, None, Move.SHRINK, id="without a best, any loss is tolerated"),
        pytest.param(5.0, 0.95, None, Move.STABLE, id="without a best, beyond S_max nothing changes"),
        pytest.param(9.0, 0.19, BEST, Move.SHRINK, id="below S_min a bad loss still shrinks"),
        pytest.param(math.nan, 0.19, BEST, Move.SHRINK, id="below S_min even NaN shrinks"),
        pytest.param(1.0, 0.2, BEST, Move.SHRINK, id="at S_min the loss decides"),
        pytest.param(1.1, 0.6, BEST, Move.SHRINK, id="at the edge of the tolerance it shrinks"),
        pytest.param(1.1000001, 0.6, BEST, Move.EXPAND, id="beyond the tolerance and sparser than the best it expands"),
        pytest.param(1.2, 0.5, BEST, Move.STABLE, id="as sparse as the best it stays"),
        pytest.param(1.2, 0.4, BEST, Move.STABLE, id="denser than the best it stays"),
        pytest.param(0.5, 0.9, BEST, Move.STABLE, id="at S_max a good loss does not shrink"),
        pytest.param(0.5, 0.8999, BEST, Move.SHRINK, id="just below S_max it shrinks"),
        pytest.param(2.0, 0.95, BEST, Move.EXPAND, id="beyond S_max a bad loss expands"),
        pytest.param(math.nan, 0.6, BEST, Move.STABLE, id="NaN leaves the network alone"),
        pytest.param(math.inf, 0.6, BEST, Move.EXPAND, id="an infinite loss expands"),
    ],
)
def test_the_move_follows_loss_and_sparsity(loss: float, sparsity: float, best: Best | None, move: Move) -> None:
    assert decide(loss, sparsity, best, SPEC) is move


@pytest.mark.parametrize("loss", [0.5, 1.0, 1.2, math.inf, math.nan])
@pytest.mark.parametrize("sparsity", [0.1, 0.4, 0.6, 0.95])
def test_without_expand_only_expanding_becomes_staying(loss: float, sparsity: float) -> None:
    move = decide(loss, sparsity, BEST, SPEC)
    ablated = decide(loss, sparsity, BEST, SPEC.model_copy(update={"expand": False}))
    assert ablated is (Move.STABLE if move is Move.EXPAND else move)


def test_only_a_lower_loss_replaces_the_best() -> None:
    assert updated_best(0.9, 0.6, BEST) == Best(0.9, 0.6)
    assert updated_best(1.0, 0.6, BEST) == BEST
    assert updated_best(math.nan, 0.6, BEST) == BEST


def test_the_first_finite_loss_becomes_the_best() -> None:
    assert updated_best(7.0, 0.0, None) == Best(7.0, 0.0)
    assert updated_best(math.inf, 0.0, None) is None
    assert updated_best(math.nan, 0.0, None) is None
