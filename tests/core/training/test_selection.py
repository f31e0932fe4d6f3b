from __future__ import annotations

import pytest

from pals_core.training.selection import BestEpoch, EarlyStopping


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
    rule = BestEpoch(min_sparsity=0.2)
    offered = [rule.offer(epoch, loss, sparsity) for epoch, (loss, sparsity) in enumerate(epochs, start=1)]
    assert rule.epoch == best
    assert rule.reached_min_sparsity is reached
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
    stopping = EarlyStopping(patience=2)
    stopped = [epoch for epoch, loss in enumerate(losses, start=1) if stopping.should_stop(loss)]
    assert (stopped[0] if stopped else None) == stops_after
