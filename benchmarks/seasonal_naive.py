"""The forecast that costs nothing: what was there one season before."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BusinessDay

from pals_core.data.frequency import Family, calendar_family
from pals_core.data.split import split_rows
from pals_core.data.table import Table
from pals_core.data.windows import make_windows
from pals_core.spec import DataSpec

# Base steps of a season: a day of shorter steps, a week of days, a year of longer ones.
_SEASON = {
    Family.SECONDLY: 86_400,
    Family.MINUTELY: 1_440,
    Family.HOURLY: 24,
    Family.DAILY: 7,
    Family.WEEKLY: 52,
    Family.MONTHLY: 12,
    Family.QUARTERLY: 4,
    Family.YEARLY: 1,
}
_BUSINESS_WEEK = 5


@dataclass(frozen=True)
class NaiveErrors:
    """Mean errors over every test window and column, in scaled units; `period` is the season in steps."""

    period: int
    windows: int
    mse: float
    mae: float


def season_length(frequency: str) -> int:
    """Return the steps of the shortest whole number of seasons of a pandas offset alias: 24 for `h`, 96 for `15min`.

    Raises InvalidTable for an alias that is not known.
    """
    family, offset = calendar_family(frequency), to_offset(frequency)
    season = _BUSINESS_WEEK if isinstance(offset, BusinessDay) else _SEASON[family]
    return math.lcm(season, offset.n) // offset.n


def seasonal_naive(table: Table, data: DataSpec) -> NaiveErrors:
    """Return the errors of repeating the last known season over every test window; `data` is resolved.

    Known is all that comes before the forecast, further back than a model's input as well. Raises ValueError when the
    first test window has less than one season before it.
    """
    period = season_length(table.frequency)
    test = make_windows(table, data).test
    values = test.values.double().numpy()
    # Windows reach back, so that the first one forecasts the first row of its part.
    first = split_rows(len(table.times), data.split).test.start + np.arange(len(test))
    if first[0] < period:
        raise ValueError(f"a season has {period} steps; only {first[0]} precede the first test forecast")
    squared = absolute = 0.0
    for ahead in range(data.horizon):
        rows = first + ahead
        error = values[rows] - values[rows - period * (ahead // period + 1)]
        squared += float(np.square(error).mean())
        absolute += float(np.abs(error).mean())
    return NaiveErrors(period, len(test), squared / data.horizon, absolute / data.horizon)
