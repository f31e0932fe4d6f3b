from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.seasonal_naive import seasonal_naive
from pals_core.data.table import Table
from pals_core.spec import DataSpec


def test_its_errors_are_means_over_every_test_window() -> None:
    values = np.random.default_rng(1).normal(size=(100, 2))
    times = pd.date_range("2020-01-05", periods=100, freq="D").as_unit("us")
    errors = seasonal_naive(Table(times, values, ("a", "b"), "D"), DataSpec(input_len=3, label_len=1, horizon=10))

    scaled = (values - values[:70].mean(axis=0)) / values[:70].std(axis=0)
    origins = range(80, 91)  # the last 20 rows are the test part: 11 forecasts of 10 steps
    forecast = np.stack([[scaled[origin - 7 + ahead % 7] for ahead in range(10)] for origin in origins])
    error = forecast - np.stack([scaled[origin : origin + 10] for origin in origins])
    assert (errors.period, errors.windows) == (7, 11)
    assert errors.mse == pytest.approx(np.square(error).mean(), rel=1e-5)
    assert errors.mae == pytest.approx(np.abs(error).mean(), rel=1e-5)
