"""Forecasts from a checkpoint file.

Shapes: G groups of columns that go through the network together, L input steps, H horizon of the network, N steps asked
for, K known-future columns, C columns, T time steps of a forecast: N where all series end together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from pals_core.checkpoint.file import Checkpoint, read_checkpoint
from pals_core.checkpoint.header import CheckpointHeader
from pals_core.compaction.compact import compact
from pals_core.data.grid import future_times
from pals_core.data.lengths import window_lengths
from pals_core.data.scaling import Scaler, joined
from pals_core.data.table import Table
from pals_core.data.windows import inference_batch, windows_at_once
from pals_core.errors import InvalidForecastInput, InvalidTable, Problem
from pals_core.evaluation.conformal import half_widths
from pals_core.evaluation.measure import default_widths
from pals_core.forecast.future import future_values, read_future
from pals_core.forecast.recent import (
    Recent,
    ends_of_training,
    frequencies_of,
    invalid_input,
    is_whole,
    not_fitting,
    recent_values,
    table_for,
)
from pals_core.forecast.typical import typical_inputs
from pals_core.heap import keep_freed_memory
from pals_core.kernels.choice import Kernels, choose_kernels
from pals_core.kernels.report import KernelReport
from pals_core.torch_defaults import own_torch_defaults

# Farther ahead, a network would mostly go on from what it said itself.
MAX_HORIZONS = 100
# So many cells of an answer are at hand at once; series that end far apart make a wide and almost empty one.
MAX_CELLS = 5_000_000
# Mean square of what kernels of less precision may change forecasts by, as a share of the test MSE. Such changes do not
# go with the errors, so the MSE rises by about as much.
LARGEST_CHANGE = 1e-3


@dataclass(frozen=True)
class Interval:
    """Between what bounds values shall lie in `level` per cent of all cases, in the data's units.

    NaN where the forecast is, and beyond the network's horizon, where nothing was calibrated.
    """

    level: float
    lower: npt.NDArray[np.float64]  # [T, C]
    upper: npt.NDArray[np.float64]  # [T, C]


@dataclass(frozen=True)
class Forecast:
    """Values in the data's units for the time steps after the last known one of each column.

    Columns of one window end together. Pooled series need not: then `timestamps` are all steps that one of them is
    forecast at, and a value is NaN where that is not one of its own N steps.
    """

    timestamps: pd.DatetimeIndex  # [T]
    columns: tuple[str, ...]
    values: npt.NDArray[np.float64]  # [T, C]
    intervals: tuple[Interval, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """Return one row per time step, one column per series, and one per bound of each interval (`load-lo-80`).

        Raises InvalidForecastInput when a series is called like a bound of another one.
        """
        names, blocks = list(self.columns), [self.values]
        for interval in self.intervals:
            for bound, values in (("lo", interval.lower), ("hi", interval.upper)):
                names += [f"{name}-{bound}-{_shortest(interval.level)}" for name in self.columns]
                blocks.append(values)
        if twice := sorted(name for name, count in Counter(names).items() if count > 1):
            raise invalid_input(
                f"{twice[0]!r} is the name of a series and of another one's bound; read values and intervals instead",
                twice[0],
            )
        return pd.DataFrame(np.concatenate(blocks, axis=1), index=self.timestamps, columns=names)


class Forecaster:
    """A trained network ready to forecast on the CPU; the same input always gives the same forecast.

    The network is the checkpoint's unless another `model` is given in its place, such as a compacted one.
    """

    def __init__(
        self, checkpoint: Checkpoint, model: nn.Module | None = None, kernels: KernelReport | None = None
    ) -> None:
        self.header: CheckpointHeader = checkpoint.header
        self.kernels = kernels  # what was chosen to compute `model` with; None where that is PyTorch's dense products
        self._series_ends = checkpoint.series_ends
        self._model = checkpoint.build() if model is None else model
        self._lengths = window_lengths(self.header.spec.data)

    @property
    def nbytes(self) -> int:
        """Memory that weights, buffers and the series' end take."""
        tensors = (*self._model.parameters(), *self._model.buffers())
        return sum(tensor.nbytes for tensor in tensors) + sum(end.values.nbytes for end in self._series_ends)

    @own_torch_defaults()
    def forecast(
        self,
        recent: Table | pd.DataFrame | str | Path | None = None,
        future: Table | pd.DataFrame | str | Path | None = None,
        *,
        series: Sequence[str] | None = None,
        horizon: int | None = None,
        levels: Sequence[float] | None = None,
    ) -> Forecast:
        """Forecast the steps after `recent`, or after the end of the series the model was trained on.

        `recent`, a table, a frame or a file, needs at least input_len time steps of the training's frequency and all
        its columns, the known-future ones included, in any order; others are not read. Of a pooled model it needs one
        series or more, and `series` says which to forecast: those of the training unless given. One that was not in the
        training is scaled by the mean and standard deviation of all its values in `recent`. Missing values are treated
        as in training. Data of the frequency the training resampled from are resampled likewise; the forecast then
        begins after the last whole step. `future` holds the known-future columns at the steps of the horizon, or more.

        `horizon` is how many steps, the network's unless given; beyond these it goes on from its own forecasts, in
        whole horizons, so that `future` must reach to the end of the last. `levels`, in per cent, are those of the
        prediction intervals: 80 and 95 where the checkpoint has them unless given, none of them when empty. Raises
        InvalidForecastInput, and FileNotFoundError without the file.
        """
        data = self.header.spec.data
        steps = self._lengths.horizon if horizon is None else horizon
        whole = self._whole_horizons(steps)
        widths = self._widths(levels)
        if recent is None:
            groups = ends_of_training(self.header, self._series_ends, series)
        else:
            groups = recent_values(self.header, self._table(recent, series), series)
        columns = sum(len(group.targets) for group in groups)
        if whole > self._lengths.horizon and whole * columns > MAX_CELLS:
            raise _wrong_field(
                "horizon", f"{steps} steps of {columns} columns are too many for one forecast; ask for fewer"
            )
        if future is not None and not data.known_future:
            raise invalid_input("the model has no known-future columns; leave future out")
        ahead = None if future is None else read_future(future, data.known_future, frequencies_of(self.header))

        ending_together: dict[pd.Timestamp, list[Recent]] = {}
        for group in groups:
            ending_together.setdefault(group.end.times[-1], []).append(group)
        forecasts = []
        for last, of_end in ending_together.items():
            try:
                times = future_times(last, whole, self.header.frequency)
            except (ValueError, OverflowError) as error:
                raise invalid_input("the horizon ends beyond the last date there is") from error
            known_future = [future_values(ahead, group, times, data, self.header.resampled_from) for group in of_end]
            names = tuple(name for group in of_end for name in group.targets)
            scaler = joined([group.scaler for group in of_end])
            values = self._values(of_end, times, known_future, scaler)[:steps]
            intervals = tuple(_interval(level, values, width[:steps], scaler.std) for level, width in widths.items())
            forecasts.append(Forecast(times[:steps], names, values, intervals))
        return _in_order(forecasts, tuple(name for group in groups for name in group.targets))

    def _whole_horizons(self, steps: int) -> int:
        """Return the steps of as many whole horizons as `steps` need."""
        most = MAX_HORIZONS * self._lengths.horizon
        if not is_whole(steps):
            raise _wrong_field("horizon", f"horizon is {steps!r}; it must be a whole number of steps")
        if not 1 <= steps <= most:
            raise _wrong_field("horizon", f"horizon is {steps}; this model forecasts 1 to {most} steps")
        return math.ceil(steps / self._lengths.horizon) * self._lengths.horizon

    def _widths(self, levels: Sequence[float] | None) -> dict[float, npt.NDArray[np.float64]]:
        """Return half the widths of the intervals by level, [H, C] or [H, 1] in scaled units."""
        calibration, horizon = self.header.calibration, self._lengths.horizon
        if levels is None:
            return default_widths(calibration, horizon)
        if isinstance(levels, str) or np.ndim(levels) != 1:
            raise _wrong_field("levels", f"levels is {levels!r}; give a list of them, in per cent, such as [80, 95]")
        widths: dict[float, npt.NDArray[np.float64]] = {}
        for place, level in enumerate(levels):
            if not isinstance(level, Real) or isinstance(level, bool) or not 0 < level < 100:
                raise _wrong_field(f"levels/{place}", f"a level is in per cent, above 0 and below 100, not {level!r}")
            if calibration is None:
                message = "the checkpoint has no calibration; only the best one of a training that ended has one"
                raise _wrong_field("levels", f"{message}; leave levels out")
            if level > calibration.highest_level:
                raise _wrong_field(
                    f"levels/{place}",
                    f"level {level:g} cannot be had from {calibration.residuals} residuals of the validation part; at "
                    f"most {math.floor(100 * calibration.highest_level) / 100:g} can",
                )
            widths[float(level)] = half_widths(calibration, horizon, level)
        return widths

    def _values(
        self,
        groups: Sequence[Recent],
        times: pd.DatetimeIndex,
        known_future: Sequence[npt.NDArray[np.float64]],
        scaler: Scaler,
    ) -> npt.NDArray[np.float64]:
        """Return the forecasts of groups that end together, for `times`, [N, C]; N is a multiple of H.

        `known_future` are each group's known-future columns then, [N, K], `scaler` is that of all columns.
        """
        input_len, horizon = self._lengths.input_len, self._lengths.horizon
        scaled, beside = [], []
        for group, ahead in zip(groups, known_future, strict=True):
            targets = len(group.targets)
            scaled.append(_zero_where_missing(group.scaler.scale(group.end.values[:, :targets])))
            marks = np.concatenate((group.end.values[:, targets:], ahead))
            beside.append(_zero_where_missing(group.known_future.scale(marks)))
        values, marks = np.stack(scaled), np.stack(beside)
        all_times = pd.DatetimeIndex(groups[0].end.times.append(times))
        for start in range(0, len(times), horizon):
            known = slice(start, start + input_len)
            marked = slice(start, start + input_len + horizon)
            ahead = self._one_horizon(values[:, known], all_times[known], marks[:, marked])
            values = np.concatenate((values, _finite(ahead)), axis=1)
        return _finite(scaler.unscale(values[:, input_len:].transpose(1, 0, 2).reshape(len(times), -1)))

    def _one_horizon(
        self, values: npt.NDArray[np.float64], times: pd.DatetimeIndex, marks: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Return the forecasts after `values`, [G, L, C], as [G, H, C] in scaled units."""
        outputs = []
        at_once = windows_at_once(self.header.spec.training.batch_size)
        for first in range(0, len(values), at_once):
            chunk = slice(first, first + at_once)
            batch = inference_batch(values[chunk], times, self.header.frequency, self._lengths, marks[chunk])
            with torch.inference_mode():
                output = self._model(batch.x_enc, batch.x_mark_enc, batch.x_dec, batch.x_mark_dec)
            outputs.append(output.double().numpy())
        return np.concatenate(outputs)

    def _table(self, recent: Table | pd.DataFrame | str | Path, series: Sequence[str] | None) -> Table:
        try:
            return table_for(self.header, recent, series)
        except InvalidTable as error:
            raise not_fitting(error) from error


@own_torch_defaults()
def load_forecaster(
    path: str | Path, kernels: Kernels | str = Kernels.TORCH, *, batch_size: int | None = None
) -> Forecaster:
    """Load the forecaster of a checkpoint file.

    With `kernels` "fp32" or "auto" each linear layer gets the kernel that is measured to be the fastest here, for
    batches of `batch_size` windows: unless given 1, or of a pooled model as many as it has series and are forecast at
    once. That takes seconds, and may come out otherwise the next time. Forecasts then differ from the default's, by
    rounding with "fp32", by bfloat16 or int8 with "auto", which gives these up where they change forecasts by a mean
    square of more than 0.1 % of the test MSE (of 1 where the file has none). `Forecaster.kernels` says what was chosen.
    From then on the process keeps the memory that a forecast frees for the next one (`pals_core.heap`). Raises
    InvalidCheckpoint, FileNotFoundError without a file, ValueError for other `kernels` and a `batch_size` below 1.
    """
    choice = Kernels(kernels)
    if batch_size is not None and not (is_whole(batch_size) and batch_size >= 1):
        raise ValueError(f"batch_size is {batch_size!r}; it must be a whole number of at least 1")
    checkpoint = read_checkpoint(Path(path))
    if choice is Kernels.TORCH:
        return Forecaster(checkpoint)
    most = windows_at_once(checkpoint.header.spec.training.batch_size)
    size = min(len(checkpoint.header.groups), most) if batch_size is None else batch_size
    model, report = fast_network(checkpoint, typical_inputs(checkpoint, size), choice)
    return Forecaster(checkpoint, model, report)


@own_torch_defaults()
def fast_network(checkpoint: Checkpoint, inputs: Sequence[Tensor], kernels: Kernels) -> tuple[nn.Module, KernelReport]:
    """Return a checkpoint's network with the kernels that `load_forecaster` chooses for `inputs`, and which they are.

    The process keeps freed memory from then on.
    """
    metrics = checkpoint.header.metrics
    model = compact(checkpoint).model
    keep_freed_memory()
    mse = 1.0 if metrics is None else metrics.mse
    return model, choose_kernels(model, checkpoint.build(), inputs, kernels, LARGEST_CHANGE * mse)


def _shortest(level: float) -> str:
    """Return a level as `80`, and with all its digits where six of them are another one."""
    return f"{level:g}" if float(f"{level:g}") == level else repr(float(level))


def _finite(forecast: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if not np.isfinite(forecast).all():
        raise invalid_input("the forecast is not finite; the recent values are too far from those of the training")
    return forecast


def _zero_where_missing(scaled: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Only the policy that masks has let missing values through to here."""
    return np.where(np.isnan(scaled), 0.0, scaled)


def _in_order(forecasts: Sequence[Forecast], columns: tuple[str, ...]) -> Forecast:
    """Join the forecasts of series that end at different times, with `columns` in this order."""
    if len(forecasts) == 1 and forecasts[0].columns == columns:
        return forecasts[0]
    times = forecasts[0].timestamps
    for forecast in forecasts[1:]:
        times = pd.DatetimeIndex(times.union(forecast.timestamps))
    if len(times) * len(columns) > MAX_CELLS:
        raise invalid_input(
            f"{len(columns)} series that end at {len(forecasts)} different times are too many for one forecast; ask "
            "for some of them with series"
        )
    position = {name: place for place, name in enumerate(columns)}
    cells = [
        np.ix_(times.get_indexer(forecast.timestamps), np.array([position[name] for name in forecast.columns]))
        for forecast in forecasts
    ]

    def spread(of_forecasts: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        values = np.full((len(times), len(columns)), np.nan)
        for places, of_forecast in zip(cells, of_forecasts, strict=True):
            values[places] = of_forecast
        return values

    intervals = tuple(
        Interval(same[0].level, spread([one.lower for one in same]), spread([one.upper for one in same]))
        for same in zip(*(forecast.intervals for forecast in forecasts), strict=True)
    )
    return Forecast(times, columns, spread([forecast.values for forecast in forecasts]), intervals)


def _interval(
    level: float, values: npt.NDArray[np.float64], width: npt.NDArray[np.float64], std: npt.NDArray[np.float64]
) -> Interval:
    """Return the interval around forecasts, [N, C], of which the first horizon has a scaled width, [≤ N, C or 1]."""
    everywhere = np.full(values.shape, np.nan)
    with np.errstate(over="ignore"):
        everywhere[: len(width)] = width * std
        lower, upper = values - everywhere, values + everywhere
    if np.isinf(lower).any() or np.isinf(upper).any():
        message = f"the interval of level {level:g} is not finite; ask for none with levels empty"
        raise _wrong_field("levels", message)
    return Interval(level, lower, upper)


def _wrong_field(pointer: str, message: str) -> InvalidForecastInput:
    return InvalidForecastInput(message, (Problem(message, pointer=f"/{pointer}"),))
