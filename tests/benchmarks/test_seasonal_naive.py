from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.seasonal_naive import season_length, seasonal_naive
from pals_core.data.table import Table
from pals_core.data.windows import make_windows
from pals_core.spec import DataSpec


@pytest.mark.parametrize(
    ("frequency", "steps"),
    [
        ("h", 24),
        ("2h", 12),
        ("7h", 24),
        ("15min", 96),
        ("s", 86_400),
        ("D", 7),
        ("2D", 7),
        ("B", 5),
        ("W-SAT", 52),
        ("2W-SUN", 26),
        ("MS", 12),
        ("BME", 12),
        ("QE-MAR", 4),
        ("YS-JAN", 1),
    ],
)
def test_a_season_is_the_shortest_whole_number_of_steps(frequency: str, steps: int) -> None:
    assert season_length(frequency) == steps


def table_of(values: np.ndarray, frequency: str) -> Table:
    times = pd.date_range("2020-01-05", periods=len(values), freq=frequency).as_unit("us")
    return Table(times, values, tuple(f"c{column}" for column in range(values.shape[1])), frequency)


def test_it_repeats_the_last_known_season_and_looks_beyond_a_models_input() -> None:
    values = np.random.default_rng(1).normal(size=(100, 2))
    table = table_of(values, "D")
    data = DataSpec(input_len=3, label_len=1, horizon=10)

    errors = seasonal_naive(table, data)

    squared, absolute = [], []
    scaled = make_windows(table, data).scaler.scale(values)
    for origin in range(80, 91):  # the last 20 rows are the test part: 11 forecasts of 10 steps
        season = scaled[origin - 7 : origin]
        forecast = np.stack([season[ahead % 7] for ahead in range(10)])
        squared.append((forecast - scaled[origin : origin + 10]) ** 2)
        absolute.append(abs(forecast - scaled[origin : origin + 10]))
    assert (errors.period, errors.windows) == (7, 11)
    assert errors.mse == pytest.approx(np.mean(squared), rel=1e-5)
    assert errors.mae == pytest.approx(np.mean(absolute), rel=1e-5)


def test_a_season_longer_than_the_history_is_an_error() -> None:
    with pytest.raises(ValueError, match="52 steps; only 32 precede"):
        seasonal_naive(table_of(np.ones((40, 1)), "W-SUN"), DataSpec(input_len=2, label_len=1, horizon=2))
