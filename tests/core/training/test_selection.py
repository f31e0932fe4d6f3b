from __future__ import annotations

import pytest

from pals_core.spec import (
    DenseMethodSpec,
    FrozenSpec,
    GmpMethodSpec,
    PalsMethodSpec,
    SetMethodSpec,
    StaticMethodSpec,
)
from pals_core.training.selection import BestEpoch, EarlyStopping, Goal, goal_of


@pytest.mark.parametrize(
    ("epochs", "best", "reached"),
    [
        pytest.param([(0.9, 0.3), (0.8, 0.4), (0.85, 0.5)], 2, True, id="the lowest loss among sparse epochs"),
        pytest.param([(0.1, 0.1), (0.8, 0.2), (0.9, 0.3)], 2, True, id="a denser epoch does not count, however good"),
        pytest.param([(0.5, 0.3), (0.1, 0.1)], 1, True, id="nor does one that comes later"),
        pytest.param([(0.3, 0.0), (0.2, 0.1), (0.4, 0.15)], 2, False, id="among all when none is sparse enough"),
        pytest.param([(0.5, 0.3), (0.5, 0.4)], 1, True, id="an equal loss does not replace the first"),
    ],
)
def test_the_best_epoch(epochs: list[tuple[float, float]], best: int, reached: bool) -> None:
    rule = BestEpoch(Goal(0.2, awaited=False))
    offered = [rule.offer(epoch, loss, sparsity) for epoch, (loss, sparsity) in enumerate(epochs, start=1)]
    assert rule.epoch == best
    assert rule.reached_target is reached
    assert offered[best - 1]
    assert not any(offered[best:])


@pytest.mark.parametrize(
    ("losses", "stops_after"),
    [
        pytest.param([3, 2, 1, 0.5], None, id="an ever lower loss goes on"),
        pytest.param([1, 2, 3], 3, id="two epochs without a lower one"),
        pytest.param([1, 2, 0.9, 1, 0.9], 5, id="a lower one starts the count anew, an equal one does not"),
    ],
)
def test_early_stopping_counts_epochs_without_a_lower_loss(losses: list[float], stops_after: int | None) -> None:
    assert stops_after_epoch(Goal(0.9, awaited=False), [(loss, 0.0) for loss in losses]) == stops_after


def test_epochs_before_an_awaited_goal_do_not_count_towards_stopping() -> None:
    epochs = [(0.1, 0.3), (0.2, 0.6), (0.3, 0.8), (0.5, 0.9), (0.6, 0.9), (0.7, 0.9)]
    assert stops_after_epoch(Goal(0.9, awaited=True), epochs) == 6
    assert stops_after_epoch(Goal(0.9, awaited=False), epochs) == 3


def stops_after_epoch(goal: Goal, epochs: list[tuple[float, float]]) -> int | None:
    stopping = EarlyStopping(patience=2, goal=goal)
    for epoch, (loss, sparsity) in enumerate(epochs, start=1):
        stopping.offer(loss, sparsity)
        if stopping.is_due:
            return epoch
    return None


@pytest.mark.parametrize(
    ("method", "sparsity", "awaited"),
    [
        (PalsMethodSpec(min_sparsity=0.3), 0.3, False),
        (DenseMethodSpec(), 0.0, False),
        (GmpMethodSpec(sparsity=0.7), 0.7, True),
        (SetMethodSpec(sparsity=0.7), 0.7, True),
        (StaticMethodSpec(sparsity=0.7), 0.7, True),
    ],
)
def test_the_goal_is_the_minimum_of_pals_or_the_target(method: FrozenSpec, sparsity: float, awaited: bool) -> None:
    goal = goal_of(method)
    assert (goal.sparsity, goal.awaited) == (sparsity, awaited)
    assert goal.is_reached(sparsity)
    assert not goal.is_reached(sparsity - 0.001)
