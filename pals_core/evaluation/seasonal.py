"""The seasonal naive forecast: what was there one season before; it costs nothing, and is what others are held against.

Shapes: N rows, C columns of a window, E columns, or pooled series, whose errors are told apart, B batch, H horizon.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BusinessDay, Milli
from torch import Tensor

from pals_core.data.frequency import Family, calendar_family, days_of
from pals_core.data.split import Part
from pals_core.data.windows import SplitWindows, WindowSet

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
# Of steps that share a family with others.
_OWN_SEASON = {BusinessDay: 5, Milli: 86_400_000}


def season_length(frequency: str) -> int:
    """Return the steps of the shortest whole number of seasons of a pandas offset alias: 24 for `h`, 96 for `15min`.

    Steps of whole days have a week's or, if they are as long as that, about a year's, whatever unit they are told in.
    Raises InvalidTable for an alias that is not known.
    """
    days = days_of(frequency)
    if days is not None and days >= 7:
        return max(1, round(364 / days))
    if days is not None and days.is_integer():
        return math.lcm(7, int(days)) // int(days)
    family, offset = calendar_family(frequency), to_offset(frequency)
    season = _OWN_SEASON.get(type(offset), _SEASON[family])
    return math.lcm(season, offset.n) // offset.n


@dataclass(frozen=True)
class Season:
    """How far the naive forecast looks back, and how far off it was over the training part.

    `errors`, [E], are mean absolute errors in scaled units, what MASE is a multiple of (Hyndman and Koehler, 2006,
    doi:10.1016/j.ijforecast.2006.03.001); NaN where they are 0 or nothing is known.
    """

    length: int
    errors: npt.NDArray[np.float64]


def learn_season(windows: SplitWindows) -> Season:
    """Return the season of a training: that of its frequency, or one step where a training part has no more rows."""
    parts = [part.train for part in windows.parts]
    length = season_length(windows.frequency)
    if any(part.rows <= length for part in parts):
        length = 1
    values = windows.train.values.double().cpu().numpy()
    known = None if windows.train.known is None else windows.train.known.cpu().numpy()
    return Season(length, np.concatenate([_mean_errors(values, known, part, length) for part in parts]))


def _mean_errors(
    values: npt.NDArray[np.float64], known: npt.NDArray[np.bool_] | None, part: Part, length: int
) -> npt.NDArray[np.float64]:
    now, before = slice(part.start + length, part.stop), slice(part.start, part.stop - length)
    errors = np.abs(values[now] - values[before])
    counted = np.ones(errors.shape, dtype=bool) if known is None else known[now] & known[before]
    counts, sums = counted.sum(axis=0), np.where(counted, errors, 0).sum(axis=0)
    mean: npt.NDArray[np.float64] = np.where((counts > 0) & (sums > 0), sums / np.maximum(counts, 1), np.nan)
    return mean


class SeasonalNaive:
    """Repeats the last season before each window's horizon, further back than a model's input where it is longer.

    Where a value is missing, that of the latest season that has one is taken, and the training part's mean without any.
    """

    def __init__(self, windows: WindowSet, groups: Sequence[Part], length: int) -> None:
        """`groups` are the rows of each group; the first horizon of each has at least `length` of them before it."""
        self._windows = windows
        self._values = windows.values if windows.known is None else _carried(windows, groups, length)
        ahead = np.arange(windows.lengths.horizon)
        back = ahead - length * (ahead // length + 1)
        self._offsets = torch.tensor(back, device=windows.values.device) + windows.lengths.input_len

    def forecast(self, indices: Tensor) -> Tensor:
        """Return the forecasts of the windows `indices`, [B, H, C] in scaled units."""
        return self._values[self._windows.starts[indices].unsqueeze(1) + self._offsets]


def _carried(windows: WindowSet, groups: Sequence[Part], length: int) -> Tensor:
    """Return the rows, [N, C], each missing value replaced by that of a season before, and so on."""
    assert windows.known is not None
    values, known = windows.values.cpu().numpy().copy(), windows.known.cpu().numpy()
    for group in groups:
        for phase in range(min(length, group.rows)):
            rows = np.arange(group.start + phase, group.stop, length)
            seasons = np.where(known[rows], np.arange(len(rows))[:, None], -1)
            latest = np.maximum.accumulate(seasons, axis=0)
            carried = np.take_along_axis(values[rows], np.maximum(latest, 0), axis=0)
            values[rows] = np.where(latest >= 0, carried, 0)
    return torch.tensor(values, device=windows.values.device)
