from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.equal_error import WAYS, ours, reference, spec_of, summary
from benchmarks.speed_cases import CASES
from pals_core.data.table import Table


def seed(number: int, reference_mse: float, fp32_mse: float, bf16_mse: float) -> dict[str, object]:
    errors = dict(zip(WAYS, (reference_mse, fp32_mse, bf16_mse), strict=True))
    return {"seed": number} | {way: {"mse": mse, "sparsity": 0.5, "epoch": 1} for way, mse in errors.items()}


def test_ways_are_told_apart_by_more_than_two_standard_errors() -> None:
    told = summary([seed(1, 1.0, 1.2, 2.0), seed(2, 1.2, 1.4, 2.2), seed(3, 1.1, 1.0, 2.1)])

    assert told["reference"]["mse"]["mean"] == pytest.approx(1.1)
    assert told["reference"]["mse"]["standard_error"] == pytest.approx(0.1 / 3**0.5)
    near, far = told["fp32 less reference"], told["bf16 less reference"]
    # Of 0.2, 0.2 and -0.1.
    assert near["mse"] == {"mean": pytest.approx(0.1), "standard_error": pytest.approx(0.1)}
    assert (near["told_apart"], far["told_apart"], told["bf16 less fp32"]["told_apart"]) == (False, True, True)
    assert told["bf16"]["sparsity"]["mean"] == 0.5


def test_a_way_that_was_not_trained_is_compared_with_none() -> None:
    seeds = [seed(1, 1.0, 1.2, 9.0), seed(2, 1.1, 1.2, 9.0)]
    for one in seeds:
        del one["bf16"]

    assert list(summary(seeds)) == ["reference", "fp32", "fp32 less reference"]


def test_both_loops_train_a_whole_job_by_the_same_rule() -> None:
    steps = np.arange(14_400)
    values = np.sin(2 * np.pi * steps / 24) + 0.1 * np.random.default_rng(0).normal(size=14_400)
    times = pd.date_range("2016-07-01", periods=14_400, freq="h").as_unit("us")
    table = Table(times, values[:, None], ("wave",), "h")
    case = CASES["etth1-dlinear"]

    theirs = reference(spec_of(case, table, "reference", 1, epochs=2), table)
    mine = ours(spec_of(case, table, "fp32", 1, epochs=2), table)

    assert spec_of(case, table, "bf16", 1, epochs=2).training.patience == 3
    assert theirs["epoch"] == mine["epoch"] == 2
    assert theirs["sparsity"] == pytest.approx(mine["sparsity"], abs=0.01)
    assert 0 < theirs["sparsity"] < 1
    assert theirs["mse"] == pytest.approx(mine["mse"], rel=0.05)
