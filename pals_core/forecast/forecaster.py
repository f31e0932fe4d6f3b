"""Forecasts from a checkpoint file.

Shapes: L input steps, H horizon, C columns, T time steps of a forecast: H where all series end together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from pals_core.checkpoint.file import Checkpoint, read_checkpoint
from pals_core.checkpoint.header import CheckpointHeader
from pals_core.data.grid import future_times
from pals_core.data.lengths import window_lengths
from pals_core.data.scaling import joined
from pals_core.data.table import Table
from pals_core.data.windows import inference_batch
from pals_core.errors import InvalidForecastInput, InvalidTable
from pals_core.forecast.future import future_values, read_future
from pals_core.forecast.recent import Recent, ends_of_training, invalid_input, recent_values

MAX_BATCH = 64
# So many cells of an answer are at hand at once; series that end far apart make a wide and almost empty one.
MAX_CELLS = 5_000_000


@dataclass(frozen=True)
class Forecast:
    """Values in the data's units for the time steps after the last known one of each column.

    Columns of one window end together. Pooled series need not: then `timestamps` are all steps that one of them is
    forecast at, and a value is NaN where that is not one of its own H steps.
    """

    timestamps: pd.DatetimeIndex  # [T]
    columns: tuple[str, ...]
    values: npt.NDArray[np.float64]  # [T, C]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per time step, one column per series."""
        return pd.DataFrame(self.values, index=self.timestamps, columns=list(self.columns))


class Forecaster:
    """A trained network ready to forecast on the CPU; the same input always gives the same forecast.

    The network is the checkpoint's unless another `model` is given in its place, such as a compacted one.
    """

    def __init__(self, checkpoint: Checkpoint, model: nn.Module | None = None) -> None:
        self.header: CheckpointHeader = checkpoint.header
        self._series_ends = checkpoint.series_ends
        self._model = checkpoint.build() if model is None else model
        self._lengths = window_lengths(self.header.spec.data)

    def forecast(
        self,
        recent: Table | pd.DataFrame | None = None,
        future: Table | pd.DataFrame | None = None,
        *,
        series: Sequence[str] | None = None,
    ) -> Forecast:
        """Forecast the horizon after `recent`, or after the end of the series the model was trained on.

        `recent` needs at least input_len time steps of the training's frequency and all its columns, the known-future
        ones included, in any order; others are not read. Of a pooled model it needs one series or more, and `series`
        says which to forecast: those of the training unless given. One that was not in the training is scaled by the
        mean and standard deviation of all its values in `recent`. Missing values are treated as in training. Data of
        the frequency the training resampled from are resampled likewise; the forecast then begins after the last whole
        step. `future` holds the known-future columns at the H steps of the horizon, or more. Raises
        InvalidForecastInput.
        """
        data = self.header.spec.data
        if recent is None:
            groups = ends_of_training(self.header, self._series_ends, series)
        else:
            groups = recent_values(self.header, self._table(recent), series)
        if future is not None and not data.known_future:
            raise invalid_input("the model has no known-future columns; leave future out")
        ahead = None if future is None else read_future(future, data.known_future)

        ending_together: dict[pd.Timestamp, list[Recent]] = {}
        for group in groups:
            ending_together.setdefault(group.end.times[-1], []).append(group)
        forecasts = []
        for last, of_end in ending_together.items():
            try:
                horizon = future_times(last, self._lengths.horizon, self.header.frequency)
            except (ValueError, OverflowError) as error:
                raise invalid_input("the horizon ends beyond the last date there is") from error
            known_future = [future_values(ahead, group, horizon, data, self.header.resampled_from) for group in of_end]
            columns = tuple(name for group in of_end for name in group.targets)
            forecasts.append(Forecast(horizon, columns, self._values(of_end, known_future)))
        return _in_order(forecasts, tuple(name for group in groups for name in group.targets))

    def _values(
        self, groups: Sequence[Recent], known_future: Sequence[npt.NDArray[np.float64]]
    ) -> npt.NDArray[np.float64]:
        """Return the forecasts, [H, C], of groups that end together."""
        values, marks = [], []
        for group, ahead in zip(groups, known_future, strict=True):
            targets = len(group.targets)
            beside = np.concatenate((group.end.values[:, targets:], ahead))
            values.append(_zero_where_missing(group.scaler.scale(group.end.values[:, :targets])))
            marks.append(_zero_where_missing(group.known_future.scale(beside)))
        times, outputs = groups[0].end.times, []
        for first in range(0, len(groups), MAX_BATCH):
            chunk = slice(first, first + MAX_BATCH)
            batch = inference_batch(
                np.stack(values[chunk]), times, self.header.frequency, self._lengths, np.stack(marks[chunk])
            )
            with torch.inference_mode():
                output = self._model(batch.x_enc, batch.x_mark_enc, batch.x_dec, batch.x_mark_dec)
            outputs.append(output.double().numpy())
        by_column = np.concatenate(outputs).transpose(1, 0, 2).reshape(self._lengths.horizon, -1)
        forecast = joined([group.scaler for group in groups]).unscale(by_column)
        if not np.isfinite(forecast).all():
            raise invalid_input("the forecast is not finite; the recent values are too far from those of the training")
        return forecast

    def _table(self, recent: Table | pd.DataFrame) -> Table:
        if isinstance(recent, Table):
            return recent
        needed = self._lengths.input_len
        if len(recent) < needed:
            raise invalid_input(f"{needed} rows of recent values are needed; {len(recent)} were given")
        try:
            return Table.from_frame(recent)
        except InvalidTable as error:
            raise InvalidForecastInput(error.message, error.problems) from error


def load_forecaster(path: str | Path) -> Forecaster:
    """Load the forecaster of a checkpoint file; raises InvalidCheckpoint, or FileNotFoundError without a file."""
    return Forecaster(read_checkpoint(Path(path)))


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
    values = np.full((len(times), len(columns)), np.nan)
    for forecast in forecasts:
        places = np.array([columns.index(name) for name in forecast.columns])
        values[times.get_indexer(forecast.timestamps)[:, None], places] = forecast.values
    return Forecast(times, columns, values)
