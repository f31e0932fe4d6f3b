"""What becomes of missing values and constant columns before a training, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pals_core.data.scaling import is_constant
from pals_core.data.split import Parts
from pals_core.spec import MissingPolicy

MOST_NAMED = 5  # columns that a sentence names

_OF_MISSING = {
    MissingPolicy.INTERPOLATE: "filled by linear interpolation within each part of the split, from both sides of a "
    "gap, and count in no error",
    MissingPolicy.FFILL: "filled with the last known value within each part of the split, and count in no error",
    MissingPolicy.MASK: "read as the column's mean, and those of targets count in no loss or error",
}


@dataclass(frozen=True)
class TreatedColumn:
    """How many of a column's values are missing, and its value where that never changes in the training part."""

    column: str
    rows: int
    missing: int
    constant: float | None


def treated_columns(columns: Sequence[str], values: npt.NDArray[np.float64], parts: Parts) -> tuple[TreatedColumn, ...]:
    """Return those columns of `values`, [rows, C], NaN where missing, that a training does not take as they are."""
    missing = np.isnan(values).sum(axis=0)
    train = values[parts.train.start : parts.train.stop]
    found = []
    for position, name in enumerate(columns):
        known = train[~np.isnan(train[:, position]), position]
        constant = float(known[0]) if len(known) and is_constant(known.min(), known.max()) else None
        if missing[position] or constant is not None:
            found.append(TreatedColumn(name, len(values), int(missing[position]), constant))
    return tuple(found)


def note_of_missing(treated: Sequence[TreatedColumn], policy: MissingPolicy) -> str | None:
    """Return the sentence on missing values; None when there are none."""
    gaps = [f"{column.column!r} {column.missing} of {column.rows}" for column in treated if column.missing]
    return f"missing values are {_OF_MISSING[policy]}: {_listed(gaps)}" if gaps else None


def note_of_constants(treated: Sequence[TreatedColumn]) -> str | None:
    """Return the sentence on columns that are constant in the training part; None when there are none."""
    constants = [f"{column.column!r} is {column.constant:g}" for column in treated if column.constant is not None]
    if not constants:
        return None
    return (
        f"nothing can be learnt of columns that never change in the training part; they are not scaled, "
        f"only shifted to 0: {_listed(constants)}"
    )


def _listed(items: Sequence[str]) -> str:
    more = len(items) - MOST_NAMED
    return ", ".join(items[:MOST_NAMED]) + (f", and {more} more" if more > 0 else "")
