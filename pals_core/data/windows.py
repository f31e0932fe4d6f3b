"""Sliding windows over a table: what a forecaster reads and what it should have said.

Shapes: B batch, S table steps, L input_len, H horizon, C columns, F calendar features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from pals_core.data.calendar import calendar_features
from pals_core.data.grid import future_times
from pals_core.data.lengths import WindowLengths, window_lengths
from pals_core.data.missing import fill_missing
from pals_core.data.scaling import Scaler
from pals_core.data.split import Part, split_rows, window_count
from pals_core.data.table import Table
from pals_core.errors import InvalidForecastInput, InvalidSpec, InvalidTable, Problem
from pals_core.spec import DataSpec


@dataclass(frozen=True)
class Batch:
    """Windows in scaled units; the decoder's input is the last label_len known steps, then zeros."""

    x_enc: Tensor  # [B, L, C]
    x_mark_enc: Tensor  # [B, L, F]
    x_dec: Tensor  # [B, label_len + H, C]
    x_mark_dec: Tensor  # [B, label_len + H, F]
    target: Tensor  # [B, H, C]


@dataclass(frozen=True)
class WindowSet:
    """The windows of one part, in order; windows are cut from one tensor when asked for."""

    values: Tensor  # [S, C], scaled
    marks: Tensor  # [S, F]
    rows: Part  # reach-back included
    lengths: WindowLengths
    offsets: Tensor  # [1, L + H], 0, 1, 2 …

    def __len__(self) -> int:
        return max(0, self.rows.rows - self.lengths.input_len - self.lengths.horizon + 1)

    def batch(self, indices: Tensor) -> Batch:
        """Return the windows `indices`, [B] whole numbers from 0 to len(self) − 1, in that order."""
        input_len = self.lengths.input_len
        seed_start = input_len - self.lengths.label_len
        first = indices.to(self.values.device, torch.int64).unsqueeze(1) + self.rows.start
        rows = first + self.offsets
        values, marks = self.values[rows], self.marks[rows]
        x_dec = values[:, seed_start:].clone()
        x_dec[:, self.lengths.label_len :] = 0
        return Batch(
            x_enc=values[:, :input_len],
            x_mark_enc=marks[:, :input_len],
            x_dec=x_dec,
            x_mark_dec=marks[:, seed_start:],
            target=values[:, input_len:],
        )

    def to(self, device: torch.device | str) -> WindowSet:
        """Return the same windows with their tensors on `device`."""
        return replace(
            self, values=self.values.to(device), marks=self.marks.to(device), offsets=self.offsets.to(device)
        )

    def of(self, rows: Part) -> WindowSet:
        """Return the windows of other rows of the same tensors."""
        return replace(self, rows=rows)


@dataclass(frozen=True)
class SplitWindows:
    """The windows of a table's three parts, which share their tensors, and what turns forecasts back into units."""

    train: WindowSet
    validation: WindowSet
    test: WindowSet
    scaler: Scaler
    columns: tuple[str, ...]
    frequency: str

    def to(self, device: torch.device | str) -> SplitWindows:
        """Return the same windows with their shared tensors on `device`."""
        train = self.train.to(device)
        return replace(self, train=train, validation=train.of(self.validation.rows), test=train.of(self.test.rows))


def make_windows(
    table: Table, data: DataSpec, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> SplitWindows:
    """Split, fill, scale and window a table as `data` says; `data` is resolved.

    The scaling is learnt from the filled training part alone. Raises InvalidSpec for an unknown target, an unresolved
    spec or a part too short for one window, and InvalidTable for values that are missing, infinite or too large.
    """
    if data.targets is not None:
        table = table.select(data.targets)
    lengths = window_lengths(data)
    parts = split_rows(len(table.times), data.split)
    for name, part in (("training", parts.train), ("validation", parts.validation), ("test", parts.test)):
        if not window_count(part, lengths.input_len, lengths.horizon):
            message = (
                f"the {name} part has {part.rows} rows, too few for one window of input_len {lengths.input_len} "
                f"and horizon {lengths.horizon}"
            )
            raise InvalidSpec(message, (Problem(message, pointer="/data/horizon"),))

    used = slice(0, parts.test.stop)
    values = fill_missing(table.values[used], parts, data.missing, table.columns)
    if not np.isfinite(values).all():
        column = table.columns[int(np.flatnonzero(~np.isfinite(values).all(axis=0))[0])]
        message = f"column {column!r} holds an infinite value; replace it by a number"
        raise InvalidTable(message, (Problem(message, column=column),))
    scaler = Scaler.fit(values[parts.train.start : parts.train.stop])

    scaled = torch.tensor(scaler.scale(values), dtype=dtype, device=device)
    marks = torch.tensor(calendar_features(table.times[used], table.frequency), dtype=dtype, device=device)
    offsets = torch.arange(lengths.input_len + lengths.horizon, device=device).unsqueeze(0)

    def windows_of(part: Part) -> WindowSet:
        return WindowSet(scaled, marks, part.reaching_back(lengths.input_len), lengths, offsets)

    return SplitWindows(
        train=windows_of(parts.train),
        validation=windows_of(parts.validation),
        test=windows_of(parts.test),
        scaler=scaler,
        columns=table.columns,
        frequency=table.frequency,
    )


def inference_batch(
    values: npt.NDArray[np.float64],
    times: pd.DatetimeIndex,
    frequency: str,
    lengths: WindowLengths,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """Return the one window, B = 1, whose horizon lies after the last known step.

    `values` are the last L rows, [L, C] in scaled units, and `times` their time steps. The target is NaN: nobody knows
    it yet. Raises InvalidForecastInput when there are not L rows, or values are missing or infinite.
    """
    if values.shape[0] != lengths.input_len or len(times) != lengths.input_len:
        message = f"{lengths.input_len} rows of recent values are needed; {values.shape[0]} were given"
        raise InvalidForecastInput(message, (Problem(message),))
    if not np.isfinite(values).all():
        row, column = (int(position[0]) for position in np.nonzero(~np.isfinite(values)))
        message = f"recent value {row + 1} of column {column + 1} is missing or infinite"
        raise InvalidForecastInput(message, (Problem(message),))
    known = torch.tensor(values, dtype=dtype, device=device).unsqueeze(0)
    seed_start = lengths.input_len - lengths.label_len
    unknown = known.new_zeros(1, lengths.horizon, known.shape[2])
    all_times = pd.DatetimeIndex(times.append(future_times(times[-1], lengths.horizon, frequency)))
    marks = torch.tensor(calendar_features(all_times, frequency), dtype=dtype, device=device).unsqueeze(0)
    return Batch(
        x_enc=known,
        x_mark_enc=marks[:, : lengths.input_len],
        x_dec=torch.cat((known[:, seed_start:], unknown), dim=1),
        x_mark_dec=marks[:, seed_start:],
        target=torch.full_like(unknown, torch.nan),
    )
