"""The errors of the forecast that costs nothing: what was there one season before."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pals_core.data.table import Table
from pals_core.data.windows import make_windows
from pals_core.evaluation.origins import origins_of_test
from pals_core.evaluation.seasonal import SeasonalNaive, learn_season
from pals_core.spec import DataSpec


@dataclass(frozen=True)
class NaiveErrors:
    """Mean errors over every test window and column, in scaled units; `period` is the season in steps."""

    period: int
    windows: int
    mse: float
    mae: float


def seasonal_naive(table: Table, data: DataSpec) -> NaiveErrors:
    """Return the errors of repeating the last known season over every test window; `data` is resolved, nothing missing.

    Known is all that comes before the forecast, further back than a model's input as well.
    """
    windows = make_windows(table, data)
    test, season = windows.test, learn_season(windows)
    naive = SeasonalNaive(test, origins_of_test(windows).groups, season.length)
    squared = absolute = 0.0
    for indices in test.in_batches(torch.arange(len(test))):
        error = (naive.forecast(indices) - test.batch(indices).target).double()
        squared += float(error.square().sum())
        absolute += float(error.abs().sum())
    count = len(test) * data.horizon * test.values.shape[1]
    return NaiveErrors(season.length, len(test), squared / count, absolute / count)
