"""The recent values a forecast goes on from, brought to what the network was trained on.

Shapes: L input_len, K known-future columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd

from pals_core.checkpoint.header import CheckpointHeader
from pals_core.data.grid import are_steps, is_consecutive
from pals_core.data.groups import grouped
from pals_core.data.lengths import window_lengths
from pals_core.data.missing import fill_rows
from pals_core.data.resampling import resample
from pals_core.data.scaling import Scaler
from pals_core.data.table import Table, table_of
from pals_core.errors import InvalidForecastInput, InvalidSpec, InvalidTable, Problem, listed


@dataclass(frozen=True)
class Recent:
    """What one group of columns, one or all of the targets, goes on from, and its scaling."""

    end: Table  # the last L steps; the targets, then the K known-future columns; filled, in the data's units
    scaler: Scaler  # of the targets
    known_future: Scaler  # of the known-future columns
    before_resampling: Table | None  # the same columns as they were given, where they were resampled

    @property
    def targets(self) -> tuple[str, ...]:
        return self.end.columns[: len(self.scaler.mean)]


def ends_of_training(header: CheckpointHeader, ends: Sequence[Table], series: Sequence[str] | None) -> list[Recent]:
    """Return the series' ends that the checkpoint holds, of all groups or the `series` named."""
    names = chosen_series(header, header.columns, series)
    if unseen := [name for name in names if name not in header.columns]:
        raise invalid_input(
            f"series {unseen[0]!r} was not in the training; give its recent values to have it forecast", unseen[0]
        )
    if not header.spec.data.pooled:
        return [Recent(ends[0], *learnt_scalers(header, 0), None)]
    places = {name: place for place, name in enumerate(header.columns)}
    return [Recent(ends[places[name]], *learnt_scalers(header, places[name]), None) for name in names]


def recent_values(header: CheckpointHeader, table: Table, series: Sequence[str] | None) -> list[Recent]:
    """Return the last input_len steps of each group of a table's columns, filled as in training.

    They are resampled as in training unless they come at that frequency. A pooled series that was not in the training
    is scaled by the mean and standard deviation of all its values in `table`. Raises InvalidForecastInput.
    """
    table, names, slow = fitting(header, table, series)
    data = header.spec.data
    try:
        groups = grouped(table, data.model_copy(update={"targets": names, "resample": None}))
        return [_recent(header, group, slow=slow) for group in groups]
    except (InvalidTable, InvalidSpec) as error:
        raise not_fitting(error) from error


def table_for(
    header: CheckpointHeader, given: Table | pd.DataFrame | str | Path, series: Sequence[str] | None
) -> Table:
    """Return the values given for a forecast of `series`: of a frame or file, the columns that this needs.

    Raises InvalidForecastInput for a column that is missing, where `fitting` is not to say it, and InvalidTable.
    """
    if isinstance(given, Table):
        return given
    data = header.spec.data
    needed, where_there = data.known_future, header.columns
    if series is not None or not data.pooled:
        needed, where_there = (*(where_there if series is None else series), *needed), ()
    try:
        return table_of(given, tuple(dict.fromkeys(needed)), where_there, frequencies_of(header))
    except InvalidSpec as error:
        raise not_fitting(error) from error


def frequencies_of(header: CheckpointHeader) -> tuple[str, ...]:
    """What the values given for a forecast may come at."""
    return tuple(name for name in (header.frequency, header.resampled_from) if name is not None)


def fitting(
    header: CheckpointHeader, table: Table, series: Sequence[str] | None
) -> tuple[Table, tuple[str, ...], bool]:
    """Return a table's columns that the network needs, the targets among them, and whether it need not be resampled.

    Raises InvalidForecastInput for a column or a frequency that does not fit.
    """
    data = header.spec.data
    names = chosen_series(header, table.columns, series)
    if missing := [name for name in (*names, *data.known_future) if name not in table.columns]:
        raise invalid_input(
            f"the column {missing[0]!r} is missing; the model needs {listed((*names, *data.known_future))}; the values "
            f"given have {listed(table.columns)}",
            missing[0],
        )
    table = table.select(names, data.known_future)
    # A few rows can look like another frequency (business days of one week like days), so the grid decides.
    slow = is_consecutive(table.times, header.frequency)
    if not slow and (header.resampled_from is None or not is_consecutive(table.times, header.resampled_from)):
        usual = header.frequency + (f", made from {header.resampled_from}" if header.resampled_from else "")
        if are_steps(table.times, header.frequency):
            usual += "; rows that are missing between them cannot be told from a slower series, so add them, left empty"
        raise invalid_input(f"the recent values are {table.frequency} steps; the model was trained on {usual}")
    if not data.pooled and len(set(table.spans)) > 1:
        raise invalid_input("the columns begin or end at different times; give all of them the same times")
    return table, names, slow


def not_fitting(error: InvalidTable | InvalidSpec) -> InvalidForecastInput:
    """What is wrong with the values given, without pointers into a spec that nobody gave."""
    problems = tuple(Problem(item.message, row=item.row, column=item.column) for item in error.problems)
    return InvalidForecastInput(error.message, problems)


def chosen_series(header: CheckpointHeader, present: Sequence[str], series: Sequence[str] | None) -> tuple[str, ...]:
    """Return the targets to forecast: those named, else, pooled, those trained on that are present, else all."""
    if not header.spec.data.pooled:
        if series is not None:
            raise invalid_input(
                "the model forecasts all its columns together; series can be chosen of a pooled one alone"
            )
        return header.columns
    if series is not None:
        if isinstance(series, str):
            raise invalid_input(f"series is the name {series!r}; give a list of names")
        if not series or len(set(series)) != len(series):
            raise invalid_input("series must name at least one series, and none of them twice")
        if both := set(series).intersection(header.spec.data.known_future):
            raise invalid_input(f"{min(both)!r} is a known-future column and not forecast", min(both))
        return tuple(series)
    known = frozenset(present)
    names = tuple(name for name in header.columns if name in known)
    if not names:
        raise invalid_input(
            f"none of the series was in the training, which had {listed(header.columns)}; name them in series to have "
            "them scaled by the values given here"
        )
    return names


def is_whole(number: object) -> bool:
    """Whether a number that somebody gave is one of steps: whole, numpy's too, and not a truth value."""
    return isinstance(number, Integral) and not isinstance(number, bool)


def invalid_input(message: str, column: str | None = None) -> InvalidForecastInput:
    """An InvalidForecastInput with its one problem."""
    return InvalidForecastInput(message, (Problem(message, column=column),))


def _recent(header: CheckpointHeader, group: Table, *, slow: bool) -> Recent:
    data, needed = header.spec.data, window_lengths(header.spec.data).input_len
    given = group
    if not slow and data.resample is not None:
        group = resample(group, data.resample)
    steps = len(group.times)
    whose = f" of series {group.columns[0]!r}" if data.pooled else ""
    if steps < needed:
        made = f" of {header.frequency}" if not slow else ""
        raise invalid_input(f"{needed} time steps{made} of recent values{whose} are needed; {steps} were given")
    values = fill_rows(group.values, data.missing, group.columns, "the recent values")
    targets = len(group.columns) - len(data.known_future)
    if np.isnan(values[-needed:, :targets]).all():
        raise invalid_input(f"none of the last {needed} values{whose} is known", group.columns[0])
    if data.pooled and group.columns[0] not in header.columns:
        scalers = _own_scalers(values, group)
    else:
        scalers = learnt_scalers(header, header.columns.index(group.columns[0]) if data.pooled else 0)
    end = Table(group.times[-needed:], values[-needed:], group.columns, group.frequency)
    return Recent(end, *scalers, None if slow else given)


def learnt_scalers(header: CheckpointHeader, place: int) -> tuple[Scaler, Scaler]:
    """Return what the training learnt of targets and known-future columns of the group at `place`."""
    columns = slice(place, place + 1) if header.spec.data.pooled else slice(None)
    scaler = Scaler(np.array(header.scaler_mean[columns]), np.array(header.scaler_std[columns]))
    if not header.known_future_mean:
        return scaler, Scaler(np.empty(0), np.empty(0))
    return scaler, Scaler(np.array(header.known_future_mean[place]), np.array(header.known_future_std[place]))


def _own_scalers(values: np.ndarray, group: Table) -> tuple[Scaler, Scaler]:
    for position in np.flatnonzero(np.isnan(values).all(axis=0)):
        raise invalid_input(f"no value of {group.columns[position]!r} is known", group.columns[position])
    if np.isinf(values).any():
        raise invalid_input(f"the values of series {group.columns[0]!r} are not all finite", group.columns[0])
    both = Scaler.fit(values)
    return Scaler(both.mean[:1], both.std[:1]), Scaler(both.mean[1:], both.std[1:])
