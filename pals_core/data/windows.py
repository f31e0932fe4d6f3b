"""Sliding windows over a table: what a forecaster reads and what it should have said.

Shapes: B batch, N rows, L input_len, H horizon, C columns of a window, F calendar features and known-future columns,
K known-future columns, G groups of columns that go through the network together: one, or one for each pooled series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from pals_core.data.calendar import calendar_features
from pals_core.data.grid import future_times
from pals_core.data.groups import grouped
from pals_core.data.lengths import WindowLengths, window_lengths
from pals_core.data.missing import fill_missing
from pals_core.data.scaling import Scaler, joined
from pals_core.data.split import Part, Parts, split_rows, window_count
from pals_core.data.table import Table
from pals_core.data.treatment import TreatedColumn, treated_columns
from pals_core.errors import InvalidForecastInput, InvalidSpec, InvalidTable, Problem
from pals_core.spec import DataSpec, MissingPolicy

# Windows that a network forecasts at once where nothing is learnt from them.
MAX_BATCH = 64


def windows_at_once(batch_size: int, micro_batches: int = 1) -> int:
    """Return how many windows are forecast at once where nothing is learnt from them, at most `MAX_BATCH`.

    Twice as many as a training goes through at once, which keeps what its layers compute: who lowers `batch_size`, or
    has it in parts, for want of memory has not enough for 64 either.
    """
    return max(1, min(MAX_BATCH, 2 * batch_size // micro_batches))


@dataclass(frozen=True)
class Batch:
    """Windows in scaled units; the decoder's input is the last label_len known steps, then zeros."""

    x_enc: Tensor  # [B, L, C]
    x_mark_enc: Tensor  # [B, L, F]
    x_dec: Tensor  # [B, label_len + H, C]
    x_mark_dec: Tensor  # [B, label_len + H, F]
    target: Tensor  # [B, H, C], where it is not known as it was filled, or 0
    known: Tensor | None = None  # [B, H, C], whether the target is known and counts; None: all of it does


@dataclass(frozen=True)
class WindowSet:
    """The windows of one part, in order, those of one series after another; cut from one tensor when asked for."""

    values: Tensor  # [N, C], scaled, the rows of one group after another
    marks: Tensor  # [N, F]
    known: Tensor | None  # [N, C], False where a value is missing, filled or not; None: none is
    filled_counts: bool  # whether a filled target counts like a known one: what is learnt from does, nothing else
    starts: Tensor  # [windows], the row each window begins at
    series: Tensor | None  # [windows], which of the pooled series each is of; None: windows are of all columns
    pooled_series: int  # how many there are; 0 where windows are of all columns
    lengths: WindowLengths
    offsets: Tensor  # [1, L + H], 0, 1, 2 …
    at_once: int  # how many are forecast at once where nothing is learnt from them

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def counted(self) -> Tensor | None:
        """Which targets count, [N, C]; None: all do."""
        return None if self.filled_counts else self.known

    def batch(self, indices: Tensor) -> Batch:
        """Return the windows `indices`, [B] whole numbers from 0 to len(self) − 1, in that order."""
        input_len = self.lengths.input_len
        seed_start = input_len - self.lengths.label_len
        rows = self.starts[indices.to(self.values.device, torch.int64)].unsqueeze(1) + self.offsets
        values, marks = self.values[rows], self.marks[rows]
        x_dec = values[:, seed_start:].clone()
        x_dec[:, self.lengths.label_len :] = 0
        return Batch(
            x_enc=values[:, :input_len],
            x_mark_enc=marks[:, :input_len],
            x_dec=x_dec,
            x_mark_dec=marks[:, seed_start:],
            target=values[:, input_len:],
            known=None if self.counted is None else self.counted[rows[:, input_len:]],
        )

    def in_batches(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Return `indices`, [n], cut into batches that are not too large to be forecast at once."""
        return indices.tensor_split(-(-len(indices) // self.at_once))

    def beginning_at(self, starts: Sequence[npt.NDArray[np.int64]]) -> WindowSet:
        """Return windows of the same rows: those that begin at `starts`, of each group, and have a target to count."""
        if self.counted is not None:
            counted = self.counted.cpu().numpy()
            starts = [of_group[_has_target(of_group, counted, self.lengths)] for of_group in starts]
        device = self.values.device
        series = np.repeat(np.arange(len(starts)), [len(of_group) for of_group in starts])
        return replace(
            self,
            starts=torch.tensor(np.concatenate(starts), device=device),
            series=None if self.series is None else torch.tensor(series, device=device),
        )

    def to(self, device: torch.device | str) -> WindowSet:
        """Return the same windows with their tensors on `device`."""
        return replace(
            self,
            values=self.values.to(device),
            marks=self.marks.to(device),
            known=None if self.known is None else self.known.to(device),
            starts=self.starts.to(device),
            series=None if self.series is None else self.series.to(device),
            offsets=self.offsets.to(device),
        )

    def sharing(self, other: WindowSet) -> WindowSet:
        """Return the same windows cut from the tensors of `other`."""
        starts = self.starts.to(other.starts.device)
        series = None if self.series is None else self.series.to(other.starts.device)
        return replace(other, starts=starts, series=series, filled_counts=self.filled_counts)


@dataclass(frozen=True)
class SplitWindows:
    """The windows of a table's three parts, which share their tensors, and what turns forecasts back into units."""

    train: WindowSet
    validation: WindowSet
    test: WindowSet
    scaler: Scaler  # of each of `columns`
    known_future: Scaler  # [G, K]
    columns: tuple[str, ...]
    frequency: str
    times: pd.DatetimeIndex  # [N], of the rows of the shared tensors
    parts: tuple[Parts, ...]  # of each group, as rows of the shared tensors
    treated: tuple[TreatedColumn, ...]  # known-future ones as well, of pooled series those of each
    left_out: int  # training windows of whose target nothing is known

    def to(self, device: torch.device | str) -> SplitWindows:
        """Return the same windows with their shared tensors on `device`."""
        train = self.train.to(device)
        return replace(self, train=train, validation=self.validation.sharing(train), test=self.test.sharing(train))


@dataclass(frozen=True)
class ScaledRows:
    """The rows of one group that windows are cut from, in scaled units; NaN where a value is missing and not filled."""

    values: npt.NDArray[np.float64]  # [rows, C]
    known: npt.NDArray[np.bool_]  # [rows, C], False where a value is missing, filled or not
    known_future: npt.NDArray[np.float64]  # [rows, K]
    times: pd.DatetimeIndex


@dataclass(frozen=True)
class _Scaled(ScaledRows):
    """The rows that a split uses."""

    parts: Parts
    scaler: Scaler
    future_scaler: Scaler
    treated: tuple[TreatedColumn, ...]


def make_windows(
    table: Table,
    data: DataSpec,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    at_once: int = MAX_BATCH,
) -> SplitWindows:
    """Group, resample, split, fill, scale and window a table as `data` says; `data` is resolved.

    The scaling is learnt from the filled training part alone, of each pooled series from its own. Filled targets are
    learnt from, but neither decide nor measure. Windows of which no target counts are left out. Raises InvalidSpec for
    an unknown column, an unresolved spec or a part too short for one window, and InvalidTable for values that are
    missing, infinite, too large, or too close together.
    """
    lengths = window_lengths(data)
    groups = grouped(table, data)
    scaled = [_scaled(group, data, lengths) for group in groups]
    first_rows = np.cumsum([0, *(len(group.values) for group in scaled)])
    parts = tuple(group.parts.after(int(first)) for first, group in zip(first_rows, scaled, strict=False))
    rows = stacked(
        scaled, groups[0].frequency, lengths, pooled=data.pooled, at_once=at_once, device=device, dtype=dtype
    )

    def windows_of(name: str) -> WindowSet:
        of_part = replace(rows, filled_counts=name == "train" and data.missing is not MissingPolicy.MASK)
        starts = [_window_starts(getattr(part, name), lengths, part.train.start) for part in parts]
        windows = of_part.beginning_at(starts)
        if not len(windows):
            message = f"no window of the {_PART_NAMES[name]} part has a target that is known"
            raise InvalidTable(message, (Problem(message, pointer="/data/missing"),))
        return windows

    train = windows_of("train")
    return SplitWindows(
        train=train,
        validation=windows_of("validation"),
        test=windows_of("test"),
        scaler=joined([group.scaler for group in scaled]),
        known_future=Scaler(
            np.stack([group.future_scaler.mean for group in scaled]),
            np.stack([group.future_scaler.std for group in scaled]),
        ),
        columns=tuple(
            name for group in groups for name in group.columns[: len(group.columns) - len(data.known_future)]
        ),
        frequency=groups[0].frequency,
        times=concatenated_times(scaled),
        parts=parts,
        treated=tuple(column for group in scaled for column in group.treated),
        left_out=sum(len(_window_starts(part.train, lengths, part.train.start)) for part in parts) - len(train),
    )


_PART_NAMES = {"train": "training", "validation": "validation", "test": "test"}


def _scaled(group: Table, data: DataSpec, lengths: WindowLengths) -> _Scaled:
    targets = len(group.columns) - len(data.known_future)
    whose = f" of series {group.columns[0]!r}" if data.pooled else ""
    parts = split_rows(len(group.times), data.split)
    for name, part in (("training", parts.train), ("validation", parts.validation), ("test", parts.test)):
        if not window_count(part, lengths.input_len, lengths.horizon):
            message = (
                f"the {name} part{whose} has {part.rows} rows, too few for one window of input_len "
                f"{lengths.input_len} and horizon {lengths.horizon}"
            )
            raise InvalidSpec(message, (Problem(message, pointer="/data/horizon"),))
    used = slice(0, parts.test.stop)
    values = fill_missing(group.values[used], parts, data.missing, group.columns)
    if np.isinf(values).any():
        column = group.columns[int(np.flatnonzero(np.isinf(values).any(axis=0))[0])]
        message = f"column {column!r} holds an infinite value; replace it by a number"
        raise InvalidTable(message, (Problem(message, column=column),))
    scaler = Scaler.fit(values[parts.train.start : parts.train.stop])
    scaled = scaler.scale(values)
    return _Scaled(
        values=scaled[:, :targets],
        known=~np.isnan(group.values[used, :targets]),
        known_future=scaled[:, targets:],
        times=group.times[used],
        parts=parts,
        scaler=Scaler(scaler.mean[:targets], scaler.std[:targets]),
        future_scaler=Scaler(scaler.mean[targets:], scaler.std[targets:]),
        treated=treated_columns(_labels(group, data), group.values[used], parts),
    )


def _labels(group: Table, data: DataSpec) -> list[str]:
    """Its columns' names; pooled series have known-future columns of the same names, each its own rows of them."""
    targets = len(group.columns) - len(data.known_future)
    of = f" beside {group.columns[0]}" if data.pooled else ""
    return [*group.columns[:targets], *(f"{name}{of}" for name in group.columns[targets:])]


def stacked(
    groups: Sequence[ScaledRows],
    frequency: str,
    lengths: WindowLengths,
    *,
    pooled: bool,
    at_once: int,
    device: torch.device | str,
    dtype: torch.dtype,
) -> WindowSet:
    """Return the rows of all groups, one group after another, without a window yet."""
    values = np.concatenate([group.values for group in groups])
    known = np.concatenate([group.known for group in groups])
    everything_known = bool(known.all())
    return WindowSet(
        values=torch.tensor(values if everything_known else np.nan_to_num(values), dtype=dtype, device=device),
        marks=torch.tensor(np.nan_to_num(np.concatenate(_marks(groups, frequency))), dtype=dtype, device=device),
        known=None if everything_known else torch.tensor(known, device=device),
        filled_counts=False,
        starts=torch.empty(0, dtype=torch.int64, device=device),
        series=torch.empty(0, dtype=torch.int64, device=device) if pooled else None,
        pooled_series=len(groups) if pooled else 0,
        lengths=lengths,
        offsets=torch.arange(lengths.input_len + lengths.horizon, device=device).unsqueeze(0),
        at_once=at_once,
    )


def concatenated_times(groups: Sequence[ScaledRows]) -> pd.DatetimeIndex:
    """Return the times of the rows of all groups, one group after another."""
    times = groups[0].times
    return times if len(groups) == 1 else pd.DatetimeIndex(times.append([group.times for group in groups[1:]]))


def _marks(groups: Sequence[ScaledRows], frequency: str) -> list[npt.NDArray[np.float64]]:
    """Return calendar features and known-future columns, [rows, F], of each group; many share their times."""
    calendars: dict[tuple[pd.Timestamp, int], npt.NDArray[np.float64]] = {}
    marks = []
    for group in groups:
        key = (group.times[0], len(group.times))
        if key not in calendars:
            calendars[key] = calendar_features(group.times, frequency)
        marks.append(np.hstack((calendars[key], group.known_future)))
    return marks


def _window_starts(part: Part, lengths: WindowLengths, first_row: int) -> npt.NDArray[np.int64]:
    """Return the rows that the windows of a part begin at; `first_row` is that of its group."""
    own = part.after(-first_row)
    first = own.reaching_back(lengths.input_len).start
    return first_row + first + np.arange(window_count(own, lengths.input_len, lengths.horizon))


def _has_target(
    starts: npt.NDArray[np.int64], counted: npt.NDArray[np.bool_], lengths: WindowLengths
) -> npt.NDArray[np.bool_]:
    """Return which of the windows have a value that counts in their horizon."""
    rows_before = np.concatenate(([0], np.cumsum(counted.any(axis=1))))
    horizons = starts + lengths.input_len
    has_target: npt.NDArray[np.bool_] = rows_before[horizons + lengths.horizon] > rows_before[horizons]
    return has_target


def inference_batch(
    values: npt.NDArray[np.float64],
    times: pd.DatetimeIndex,
    frequency: str,
    lengths: WindowLengths,
    known_future: npt.NDArray[np.float64] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """Return windows whose horizon lies after the last known step, all at the same times.

    `values` are their last L rows, [B, L, C] in scaled units, `times` the time steps of these, and `known_future` the
    known-future columns of these rows and of the horizon, [B, L + H, K] in scaled units. The target is NaN: nobody
    knows it yet. Raises InvalidForecastInput when there are not L rows, or values are missing or infinite.
    """
    if values.shape[1] != lengths.input_len or len(times) != lengths.input_len:
        message = f"{lengths.input_len} rows of recent values are needed; {values.shape[1]} were given"
        raise InvalidForecastInput(message, (Problem(message),))
    if not np.isfinite(values).all():
        _, row, column = (int(position[0]) for position in np.nonzero(~np.isfinite(values)))
        message = f"recent value {row + 1} of column {column + 1} is missing or infinite"
        raise InvalidForecastInput(message, (Problem(message),))
    known = torch.tensor(values, dtype=dtype, device=device)
    seed_start = lengths.input_len - lengths.label_len
    unknown = known.new_zeros(len(values), lengths.horizon, known.shape[2])
    all_times = pd.DatetimeIndex(times.append(future_times(times[-1], lengths.horizon, frequency)))
    calendar = calendar_features(all_times, frequency)
    features = np.broadcast_to(calendar, (len(values), *calendar.shape))
    if known_future is not None:
        features = np.concatenate((features, known_future), axis=2)
    marks = torch.tensor(features, dtype=dtype, device=device)
    return Batch(
        x_enc=known,
        x_mark_enc=marks[:, : lengths.input_len],
        x_dec=torch.cat((known[:, seed_start:], unknown), dim=1),
        x_mark_dec=marks[:, seed_start:],
        target=torch.full_like(unknown, torch.nan),
    )
