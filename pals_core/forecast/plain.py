"""Forecasts with plain data in and out, for a child process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import ValidationError

from pals_core.data.raw import TIME_NAMES
from pals_core.errors import InvalidForecastInput, Problem, pointer_of
from pals_core.forecast.forecaster import Forecaster, load_forecaster
from pals_core.forecast.rows import ForecastRows
from pals_core.spec.problems import sentence_of


def forecast_json(
    path: str,
    rows: Mapping[str, Any] | None,
    table: Path | None = None,
    *,
    future: Mapping[str, Any] | None = None,
    series: Sequence[str] | None = None,
    horizon: int | None = None,
    levels: Sequence[float] | None = None,
    load: Callable[[str], Forecaster] = load_forecaster,
) -> dict[str, Any]:
    """Forecast with a checkpoint file, which `load` loads; the arguments are those of `Forecaster.forecast`.

    `rows` and `future` are None or `{"timestamps": […], "values": {column: […]}}`; `table` is a file whose end is taken
    in place of `rows`. The answer is `{"columns": […], "timestamps": […], "values": {column: […]}, "intervals":
    [{"level": …, "lower": {column: […]}, "upper": {column: […]}}]}`, with None where a pooled series has no forecast,
    and in intervals beyond the network's own horizon. Raises InvalidCheckpoint and InvalidForecastInput.
    """
    forecaster = load(path)
    recent = None if rows is None else _frame(rows, "")
    ahead = None if future is None else _frame(future, "/future")
    forecast = forecaster.forecast(
        recent if table is None else table, ahead, series=series, horizon=horizon, levels=levels
    )
    return {
        "columns": list(forecast.columns),
        "timestamps": [time.isoformat() for time in forecast.timestamps],
        "values": _by_column(forecast.columns, forecast.values),
        "intervals": [
            {
                "level": interval.level,
                "lower": _by_column(forecast.columns, interval.lower),
                "upper": _by_column(forecast.columns, interval.upper),
            }
            for interval in forecast.intervals
        ],
    }


def _by_column(columns: Sequence[str], values: npt.NDArray[np.float64]) -> dict[str, list[float | None]]:
    cells = values.astype(object)
    cells[np.isnan(values)] = None
    return {name: cells[:, position].tolist() for position, name in enumerate(columns)}


def _frame(rows: Mapping[str, Any], pointer: str) -> pd.DataFrame:
    try:
        given = ForecastRows.model_validate(rows)
    except ValidationError as error:
        problems = tuple(
            Problem(sentence_of(detail), pointer=pointer + pointer_of(detail["loc"])) for detail in error.errors()
        )
        raise InvalidForecastInput(f"{problems[0].pointer}: {problems[0].message}", problems) from error
    for name, values in given.values.items():
        if len(values) != len(given.timestamps):
            message = f"column {name!r} has {len(values)} values for {len(given.timestamps)} timestamps"
            raise InvalidForecastInput(
                message, (Problem(message, pointer=pointer + pointer_of(["values", name]), column=name),)
            )
    time = next((name for name in TIME_NAMES if name not in given.values), TIME_NAMES[0])
    columns = {name: np.array(values, dtype=np.float64) for name, values in given.values.items()}
    return pd.DataFrame({time: list(given.timestamps)} | columns)
