"""Windows over a whole table, one every so many steps, in the scaling that a network was trained in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from pals_core.data.lengths import window_lengths
from pals_core.data.missing import fill_rows
from pals_core.data.scaling import Scaler
from pals_core.data.split import Part
from pals_core.data.table import Table
from pals_core.data.windows import ScaledRows, WindowSet, concatenated_times, stacked
from pals_core.errors import InvalidTable, Problem
from pals_core.spec import DataSpec


@dataclass(frozen=True)
class RollingWindows:
    """Windows, and the rows they were cut from: N in all, those of one group after another."""

    windows: WindowSet
    times: pd.DatetimeIndex  # [N]
    groups: tuple[Part, ...]


def rolling_windows(
    groups: Sequence[Table],
    scalers: Sequence[tuple[Scaler, Scaler]],
    data: DataSpec,
    *,
    first_row: Sequence[int],
    stride: int,
    at_once: int,
) -> RollingWindows:
    """Return a window for every `stride`-th row of each group, the first one's horizon beginning at its `first_row`.

    `scalers` are those of each group's targets and known-future columns, `at_once` how many windows are forecast
    together. Missing values are filled as in one part of a split, or masked, and do not count as targets. Raises
    InvalidTable for values that are missing or infinite, or without any window.
    """
    lengths = window_lengths(data)
    rows, starts, parts, before = [], [], [], 0
    for group, (scaler, known_future), first in zip(groups, scalers, first_row, strict=True):
        values = fill_rows(group.values, data.missing, group.columns, "the table")
        if np.isinf(values).any():
            column = group.columns[int(np.flatnonzero(np.isinf(values).any(axis=0))[0])]
            message = f"column {column!r} holds an infinite value; replace it by a number"
            raise InvalidTable(message, (Problem(message, column=column),))
        targets = len(scaler.mean)
        rows.append(
            ScaledRows(
                values=scaler.scale(values[:, :targets]),
                known=~np.isnan(group.values[:, :targets]),
                known_future=known_future.scale(values[:, targets:]),
                times=group.times,
            )
        )
        last = len(group.times) - lengths.horizon
        starts.append(before + np.arange(first, last + 1, stride) - lengths.input_len)
        parts.append(Part(before, before + len(group.times)))
        before += len(group.times)
    shared = stacked(
        rows,
        groups[0].frequency,
        lengths,
        pooled=data.pooled,
        at_once=at_once,
        device="cpu",
        dtype=torch.float32,
    )
    windows = shared.beginning_at(starts)
    if not len(windows):
        message = "no time step of the table can be forecast and compared with what came; give more rows"
        raise InvalidTable(message, (Problem(message),))
    return RollingWindows(windows, concatenated_times(rows), tuple(parts))
