"""Forecasts from a checkpoint file.

Shapes: L input steps, H horizon, C columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import ValidationError

from pals_core.checkpoint.file import Checkpoint, read_checkpoint
from pals_core.checkpoint.header import CheckpointHeader
from pals_core.data.grid import future_times
from pals_core.data.lengths import window_lengths
from pals_core.data.missing import fill_missing
from pals_core.data.raw import TIME_NAMES
from pals_core.data.scaling import Scaler
from pals_core.data.split import Part, Parts
from pals_core.data.table import Table, read_table
from pals_core.data.windows import inference_batch
from pals_core.errors import InvalidForecastInput, InvalidSpec, InvalidTable, Problem
from pals_core.forecast.rows import ForecastRows


@dataclass(frozen=True)
class Forecast:
    """Values in the data's units for the time steps after the last known one."""

    timestamps: pd.DatetimeIndex  # [H]
    columns: tuple[str, ...]
    values: npt.NDArray[np.float64]  # [H, C]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per time step, one column per series."""
        return pd.DataFrame(self.values, index=self.timestamps, columns=list(self.columns))


class Forecaster:
    """A trained network ready to forecast on the CPU; the same input always gives the same forecast."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.header: CheckpointHeader = checkpoint.header
        self._series_end = checkpoint.series_end
        self._model = checkpoint.build()
        self._lengths = window_lengths(self.header.spec.data)
        self._scaler = Scaler(np.array(self.header.scaler_mean), np.array(self.header.scaler_std))

    def forecast(self, recent: Table | pd.DataFrame | None = None) -> Forecast:
        """Forecast the horizon after `recent`, or after the end of the series the model was trained on.

        `recent` needs at least input_len time steps of the training's frequency and all its columns, in any order;
        others are not read. Missing values are filled as in training. Raises InvalidForecastInput.
        """
        table = self._series_end if recent is None else self._usable(recent)
        try:
            times = future_times(table.times[-1], self._lengths.horizon, self.header.frequency)
        except (ValueError, OverflowError) as error:
            raise _invalid("the horizon ends beyond the last date there is") from error
        scaled = self._scaler.scale(table.values)
        batch = inference_batch(scaled, table.times, self.header.frequency, self._lengths)
        with torch.inference_mode():
            output = self._model(batch.x_enc, batch.x_mark_enc, batch.x_dec, batch.x_mark_dec)
        values = self._scaler.unscale(output[0].double().numpy())
        if not np.isfinite(values).all():
            raise _invalid("the forecast is not finite; the recent values are too far from those of the training")
        return Forecast(times, self.header.columns, values)

    def _usable(self, recent: Table | pd.DataFrame) -> Table:
        """Return the last input_len steps of the model's columns, filled."""
        needed = self._lengths.input_len
        try:
            if isinstance(recent, pd.DataFrame):
                if len(recent) < needed:
                    raise _invalid(f"{needed} rows of recent values are needed; {len(recent)} were given")
                recent = Table.from_frame(recent)
            if missing := [name for name in self.header.columns if name not in recent.columns]:
                raise _invalid(
                    f"the column {missing[0]!r} is missing; the model needs {', '.join(self.header.columns)}"
                )
            table = recent.select(self.header.columns)
            steps = len(table.times)
            if steps < needed:
                raise _invalid(f"{needed} time steps of recent values are needed; {steps} were given")
            self._require_frequency(table)
            nothing = Part(0, 0)
            parts = Parts(nothing, nothing, Part(0, steps))
            values = fill_missing(table.values, parts, self.header.spec.data.missing, table.columns)
        except InvalidTable as error:
            raise InvalidForecastInput(error.message, error.problems) from error
        return Table(table.times[-needed:], values[-needed:], table.columns, table.frequency)

    def _require_frequency(self, table: Table) -> None:
        # A few rows can look like another frequency (business days of one week like days), so the grid decides.
        expected = pd.date_range(table.times[0], periods=len(table.times), freq=self.header.frequency)
        if not (expected.as_unit("us") == table.times.as_unit("us")).all():
            raise _invalid(
                f"the recent values are {table.frequency} steps; the model was trained on {self.header.frequency}"
            )


def load_forecaster(path: str | Path) -> Forecaster:
    """Load the forecaster of a checkpoint file; raises InvalidCheckpoint, or FileNotFoundError without a file."""
    return Forecaster(read_checkpoint(Path(path)))


def forecast_json(path: str, rows: Mapping[str, Any] | None, table: Path | None = None) -> dict[str, Any]:
    """Forecast with plain data in and out, for a child process.

    `rows` is None or `{"timestamps": […], "values": {column: […]}}`; `table` is a file whose end is taken instead. The
    answer is `{"columns": […], "timestamps": […], "values": {column: […]}}`. Raises InvalidCheckpoint and
    InvalidForecastInput.
    """
    forecaster = load_forecaster(path)
    recent = None if rows is None else _frame(rows)
    forecast = forecaster.forecast(recent if table is None else _read(table, forecaster.header.columns))
    return {
        "columns": list(forecast.columns),
        "timestamps": [time.isoformat() for time in forecast.timestamps],
        "values": {name: forecast.values[:, position].tolist() for position, name in enumerate(forecast.columns)},
    }


def _read(table: Path, columns: Sequence[str]) -> Table:
    try:
        return read_table(table, columns)
    except (InvalidSpec, InvalidTable) as error:
        problems = tuple(Problem(item.message, row=item.row, column=item.column) for item in error.problems)
        raise InvalidForecastInput(error.message, problems) from error


def _frame(rows: Mapping[str, Any]) -> pd.DataFrame:
    try:
        given = ForecastRows.model_validate(rows)
    except ValidationError as error:
        problems = tuple(
            Problem(detail["msg"], pointer="".join(f"/{part}" for part in detail["loc"])) for detail in error.errors()
        )
        raise InvalidForecastInput(f"{problems[0].pointer}: {problems[0].message}", problems) from error
    for name, values in given.values.items():
        if len(values) != len(given.timestamps):
            message = f"column {name!r} has {len(values)} values for {len(given.timestamps)} timestamps"
            raise InvalidForecastInput(message, (Problem(message, pointer=f"/values/{name}", column=name),))
    time = next((name for name in TIME_NAMES if name not in given.values), TIME_NAMES[0])
    columns = {name: np.array(values, dtype=np.float64) for name, values in given.values.items()}
    return pd.DataFrame({time: list(given.timestamps)} | columns)


def _invalid(message: str) -> InvalidForecastInput:
    return InvalidForecastInput(message, (Problem(message),))
