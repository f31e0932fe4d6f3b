"""Bringing a table to a slower frequency."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from pals_core.data.bins import DAY, Bins, bins_of
from pals_core.data.table import Table
from pals_core.errors import InvalidSpec, Problem
from pals_core.spec import Aggregation, Resample


def resample(table: Table, wanted: Resample) -> Table:
    """Return a wide table of the slower frequency, each step aggregated from those of `table` that fall into it.

    A step of which the table has only a part, at its start or end, is left out. One in which a value is missing has no
    value of that column either (for `last`: in which the last one is missing), because a sum, mean or extreme of the
    rest would pass for one of all. Raises InvalidSpec for a frequency that is not slower than the table's, and for a
    table without a whole step.
    """
    bins = bins_of(wanted.frequency, table.frequency)
    numbers = bins.complete(table.times[0].to_pydatetime(), table.times[-1].to_pydatetime(), table.frequency)
    if not numbers:
        message = f"the series {table.columns[0]!r} has no whole step of {bins.frequency}; choose a faster frequency"
        raise InvalidSpec(message, (Problem(message, pointer="/data/resample/frequency"),))
    edges = np.searchsorted(bins.number(_places(table.times, bins)), np.arange(numbers.start, numbers.stop + 1))
    values = _aggregated(table.values[: edges[-1]], edges, wanted.aggregation)
    return Table(_names(bins, np.arange(numbers.start, numbers.stop)), values, table.columns, bins.frequency)


def _aggregated(
    values: npt.NDArray[np.float64], edges: npt.NDArray[np.intp], aggregation: Aggregation
) -> npt.NDArray[np.float64]:
    """Return [n, C] of [rows, C], the rows from edge to edge becoming one; NaN goes through."""
    starts = edges[:-1]
    match aggregation:
        case Aggregation.LAST:
            return values[edges[1:] - 1]
        case Aggregation.MIN:
            return np.minimum.reduceat(values, starts, axis=0)
        case Aggregation.MAX:
            return np.maximum.reduceat(values, starts, axis=0)
        case Aggregation.SUM:
            return np.add.reduceat(values, starts, axis=0)
        case Aggregation.MEAN:
            mean = np.add.reduceat(values, starts, axis=0) / np.diff(edges)[:, None]
            # Rounding must not make the mean of equal values another value: the column would not be constant any more.
            return np.clip(mean, np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts))


def _places(times: pd.DatetimeIndex, bins: Bins) -> npt.NDArray[np.int64]:
    if bins.in_months:
        return np.asarray(12 * times.year + times.month - 1, dtype=np.int64)
    return np.asarray(times.as_unit("us").asi8)


def _names(bins: Bins, numbers: npt.NDArray[np.intp]) -> pd.DatetimeIndex:
    """The times that stand for steps: their first day, or the last where the frequency is named by it."""
    places = bins.start(numbers + bins.named_by_last_day)
    # Months count from the year 0, numpy's from 1970.
    first = (places - 12 * 1970).astype("datetime64[M]") if bins.in_months else places.astype("datetime64[us]")
    last_day = np.timedelta64(DAY if bins.named_by_last_day else 0, "us")
    return pd.DatetimeIndex(first.astype("datetime64[us]") - last_day)
