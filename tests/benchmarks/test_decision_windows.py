from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks import decision_windows
from pals_core.data.table import Table
from pals_core.sparsity.decision import Move
from pals_core.spec import PalsMethodSpec
from pals_core.training.events import MaskUpdate


def update(step: int, move: Move, sparsity: float) -> MaskUpdate:
    return MaskUpdate(
        step=step,
        epoch=1,
        move=move,
        validation_loss=1.0,
        best_loss=None,
        best_sparsity=None,
        prune_rate=0.5,
        sparsity_before=sparsity,
        sparsity=sparsity,
        pruned=0,
        grown=0,
    )


def test_every_move_has_a_letter_of_its_own() -> None:
    assert len({decision_windows.LETTERS[move] for move in Move}) == len(Move)


def test_moves_are_compared_along_their_own_best_loss() -> None:
    updates = [update(1, Move.SHRINK, 0.3), update(2, Move.SHRINK, 0.4), update(3, Move.SHRINK, 0.5)]
    # The second loss exceeds 1.1 times the first, at a higher sparsity: it would have expanded.
    assert decision_windows.equal_moves(updates, [1.0, 1.2, 1.05], PalsMethodSpec()) == 2


def test_both_ways_are_trained_and_every_decision_is_made_twice() -> None:
    steps = np.arange(400)
    values = np.stack((np.sin(steps / 4), np.cos(steps / 9)), axis=1)
    table = Table(pd.date_range("2021-03-01", periods=400, freq="D").as_unit("us"), values, ("a", "b"), "D")
    fields = {
        "data": {"input_len": 12, "horizon": 4},
        "model": "nlinear",
        "method": {"name": "pals", "update_interval": 2, "decision_windows": 5},
        "training": {"epochs": 3, "device": "cpu"},
    }
    studied = decision_windows.study(fields, table, lambda event: None)
    assert studied["decisions"] == len(studied["few"]["moves"]) == len(studied["all"]["moves"]) > 0
    assert set(studied["few"]["moves"]) <= set(decision_windows.LETTERS.values())
    assert 0 <= studied["equal_moves"] <= studied["decisions"]
    summary = decision_windows.summary([studied, studied])
    assert summary["share_of_equal_moves"] == studied["equal_moves"] / studied["decisions"]
    expected = studied["few"]["mse"] - studied["all"]["mse"]
    assert summary["mse"]["difference"] == {"mean": pytest.approx(expected), "standard_error": 0.0}
