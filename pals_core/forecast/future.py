"""The future values of known-future columns that a forecast is given.

Shapes: L input_len, H horizon, K known-future columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pals_core.data.files import raw_of
from pals_core.data.grid import is_on_grid, steps_from
from pals_core.data.missing import fill_rows
from pals_core.data.parse import parse
from pals_core.data.profile import FindingCode, Severity
from pals_core.data.resampling import resample
from pals_core.data.table import Table
from pals_core.errors import InvalidForecastInput, InvalidSpec, InvalidTable, Problem
from pals_core.forecast.recent import Recent, invalid_input
from pals_core.spec import DataSpec, MissingPolicy

# What a few time steps may lack without being wrong: a frequency, rows, single values.
_TOLERATED = (FindingCode.UNKNOWN_FREQUENCY, FindingCode.MISSING_TIMES, FindingCode.MISSING_VALUES)


@dataclass(frozen=True)
class Future:
    """Known-future columns over any sorted time steps; NaN where a value is missing."""

    times: pd.DatetimeIndex  # [n]
    values: npt.NDArray[np.float64]  # [n, K]


def read_future(
    given: Table | pd.DataFrame | str | Path, columns: Sequence[str], frequencies: tuple[str, ...]
) -> Future:
    """Take the known-future `columns` of a table, frame or file, for which one step is enough.

    `frequencies` are those that its steps may have. Raises InvalidForecastInput.
    """
    if isinstance(given, Table):
        times, series = given.times, dict(zip(given.columns, given.values.T, strict=True))
    else:
        try:
            parsed = parse(replace(raw_of(given), frequencies=frequencies))
        except InvalidTable as error:
            raise _of_future(error) from error
        errors = parsed.profile().errors_for(tuple(columns), missing_is_cured=True)
        for finding in errors:
            if finding.severity is Severity.ERROR and finding.code not in _TOLERATED:
                message = f"the future values cannot be used: {finding.message}; {finding.remedy}"
                raise InvalidForecastInput(message, (Problem(message, row=finding.row, column=finding.column),))
        times, series = parsed.times, parsed.series
    for name in columns:
        if name not in series:
            raise invalid_input(f"the future values of column {name!r} are missing; give them in future", name)
    return Future(times.as_unit("us"), np.stack([series[name] for name in columns], axis=1))


def future_values(
    future: Future | None, recent: Recent, horizon: pd.DatetimeIndex, data: DataSpec, resampled_from: str | None
) -> npt.NDArray[np.float64]:
    """Return the known-future columns over the horizon, [H, K], in the data's units.

    Every step must be given; a missing value in one is treated as the policy says, after the recent values. Values at
    the data's own frequency are resampled together with the recent ones. Raises InvalidForecastInput, naming column and
    step.
    """
    columns = data.known_future
    if not columns:
        return np.empty((len(horizon), 0))
    if future is None:
        raise invalid_input(
            f"the model needs the future values of {', '.join(columns)} at the {len(horizon)} time steps from "
            f"{horizon[0]} to {horizon[-1]}; give them in future",
            columns[0],
        )
    if resampled_from is not None and data.resample is not None:
        future = _resampled(future, recent, horizon, data, resampled_from)
    places = future.times.get_indexer(horizon)
    if (places < 0).any():
        step = int(np.argmax(places < 0))
        raise _missing(columns[0], step, horizon, "give a row for it in future")
    ahead = future.values[places]
    if data.missing is MissingPolicy.ERROR and np.isnan(ahead).any():
        step, column = (int(place[0]) for place in np.nonzero(np.isnan(ahead)))
        raise _missing(columns[column], step, horizon, "fill it in future")
    if np.isinf(ahead).any():
        step, column = (int(place[0]) for place in np.nonzero(np.isinf(ahead)))
        raise invalid_input(f"the future value of column {columns[column]!r} at {horizon[step]} is infinite")
    behind = recent.end.values[:, len(recent.targets) :]
    return fill_rows(np.concatenate((behind, ahead)), data.missing, columns, "the future")[len(behind) :]


def _resampled(
    future: Future, recent: Recent, horizon: pd.DatetimeIndex, data: DataSpec, resampled_from: str
) -> Future:
    """Resample what comes at the data's own frequency; a step begun in the recent values is completed from them.

    The future comes at the frequency of the recent values. Without any, or after resampled ones, its steps tell.
    """
    assert data.resample is not None
    behind = recent.before_resampling
    times, values = future.times, future.values
    if behind is None:
        later = times[times > recent.end.times[-1]]
        if is_on_grid(pd.DatetimeIndex(later.union(horizon[:1])), recent.end.frequency):
            return future
    else:
        earlier = behind.times < times[0] if len(times) else np.full(len(behind.times), True)
        times = pd.DatetimeIndex(behind.times[earlier].append(times))
        values = np.concatenate((behind.values[earlier, len(recent.targets) :], values))
    if not len(times):
        raise _missing(data.known_future[0], 0, horizon, "give rows for it in future")
    (steps,) = steps_from(times[0], [times], resampled_from)
    if (odd := np.flatnonzero(steps != np.arange(len(steps)))).size:
        after, found = times[odd[0] - 1], times[odd[0]]
        raise invalid_input(
            f"the future of column {data.known_future[0]!r} goes on from {after} to {found}, which is not one step of "
            f"{resampled_from}; give a row for every step in future"
        )
    try:
        slow = resample(Table(times, values, data.known_future, resampled_from), data.resample)
    except InvalidSpec:
        raise _missing(data.known_future[0], 0, horizon, "give all rows of it in future") from None
    return Future(slow.times, slow.values)


def _missing(column: str, step: int, horizon: pd.DatetimeIndex, remedy: str) -> InvalidForecastInput:
    return invalid_input(
        f"the future value of column {column!r} is missing at time step {step + 1} of {len(horizon)}, {horizon[step]}; "
        f"{remedy}",
        column,
    )


def _of_future(error: InvalidTable) -> InvalidForecastInput:
    message = f"the future values cannot be read: {error.message}"
    return InvalidForecastInput(
        message, tuple(Problem(message, row=item.row, column=item.column) for item in error.problems)
    )
