"""Missing values: refused, left to be masked, or filled inside each part of the split from that part alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pals_core.data.split import Part, Parts
from pals_core.errors import InvalidTable, Problem
from pals_core.spec import MissingPolicy

Values = npt.NDArray[np.float64]

_OF_A_TRAINING = "fill them, or choose the missing policy interpolate, ffill or mask"
_OF_A_FORECAST = "fill them: the model was trained on values without gaps"


def fill_missing(values: Values, parts: Parts, policy: MissingPolicy, columns: tuple[str, ...]) -> Values:
    """Return `values`, [steps, C], without NaN in the rows of `parts`; rows outside them are left as they are.

    `mask` leaves NaN where it is, for `scaling` and loss to leave out, and asks for a value in the training part alone.
    `interpolate` is linear in time steps between a part's own known values, `ffill` repeats its last known value. At a
    part's edges, where there is no value on one side, the nearest known value of the same part is repeated. Raises
    InvalidTable for a gap under the `error` policy, and for a column that has no value at all in a part.
    """
    if policy is MissingPolicy.MASK:
        unknown = np.flatnonzero(np.isnan(values[parts.train.start : parts.train.stop]).all(axis=0))
        if len(unknown):
            raise _empty(columns[unknown[0]], "the training part")
        return values.copy()
    filled = values.copy()
    for name, part in (("training", parts.train), ("validation", parts.validation), ("test", parts.test)):
        rows = filled[part.start : part.stop]
        for position in np.flatnonzero(np.isnan(rows).any(axis=0)):
            rows[:, position] = _filled(
                rows[:, position], part, policy, columns[position], f"the {name} part", _OF_A_TRAINING
            )
    return filled


def fill_rows(values: Values, policy: MissingPolicy, columns: tuple[str, ...], what: str) -> Values:
    """Return `values`, [steps, C], of which a trained network is to forecast, without NaN; `mask` leaves NaN.

    They are filled as one part, which errors call `what`. Raises InvalidTable as `fill_missing` does.
    """
    filled = values.copy()
    if policy is not MissingPolicy.MASK:
        for position in np.flatnonzero(np.isnan(values).any(axis=0)):
            filled[:, position] = _filled(
                values[:, position], Part(0, len(values)), policy, columns[position], what, _OF_A_FORECAST
            )
    return filled


def _filled(series: Values, part: Part, policy: MissingPolicy, column: str, what: str, remedy: str) -> Values:
    known = np.flatnonzero(~np.isnan(series))
    if policy is MissingPolicy.ERROR:
        first = part.start + int(np.flatnonzero(np.isnan(series))[0])
        raise _invalid(
            f"column {column!r} misses {len(series) - len(known)} values in {what}, the first at time "
            f"step {first + 1}; {remedy}",
            column,
        )
    if not len(known):
        raise _empty(column, what)
    steps = np.arange(len(series))
    if policy is MissingPolicy.INTERPOLATE:
        return np.interp(steps, known, series[known])
    latest_known = np.searchsorted(known, steps, side="right") - 1
    return series[known[np.maximum(latest_known, 0)]]


def _empty(column: str, what: str) -> InvalidTable:
    return _invalid(f"column {column!r} has no value at all in {what}; leave it out", column)


def _invalid(message: str, column: str) -> InvalidTable:
    return InvalidTable(message, (Problem(message, pointer="/data/missing", column=column),))
