"""A table as it was read, before anything is decided about its times and numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pals_core.errors import InvalidTable, Problem

MAX_COLUMNS = 2000

# What a series table may call its time column, in order of preference, in any case.
TIME_NAMES = ("date", "ds", "timestamp", "time", "datetime")
# The columns of a long table.
SERIES_ID, LONG_TIME, LONG_VALUE = "unique_id", "ds", "y"

# An index that was written along without a name, and what pandas calls one.
_NAMELESS = re.compile(r"|Unnamed: \d+|__index_level_\d+__")


@dataclass(frozen=True)
class RawTable:
    """Cells under distinct, non-empty names; blank rows are gone."""

    frame: pd.DataFrame
    rows: npt.NDArray[np.int64]  # row of the file, the header being row 1, of each row of `frame`
    nameless: tuple[str, ...] = ()  # columns without a name of their own: times or row numbers, never a series
    unreadable: tuple[str, ...] = ()  # columns of a type that cannot hold numbers, left out of `frame`
    decimal_comma: bool = False  # separated by semicolons, so that `1,5` may be a number
    time_column: str | None = None  # that of the times, where the frame itself says so
    frequencies: tuple[str, ...] = ()  # what the times may have where they tell no frequency by themselves

    @property
    def is_long(self) -> bool:
        return {SERIES_ID, LONG_TIME, LONG_VALUE} <= set(self.frame.columns)


def unreadable_table(message: str, *, row: int | None = None, column: str | None = None) -> InvalidTable:
    """An InvalidTable with its one problem."""
    return InvalidTable(message, (Problem(message, row=row, column=column),))


def column_names(header: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (names, nameless) of a header: names without spaces around them, nameless ones called `column 3`.

    Raises InvalidTable for too many columns, too few, and names that occur twice.
    """
    if len(header) > MAX_COLUMNS + 1:
        raise unreadable_table(f"the table has {len(header)} columns; at most {MAX_COLUMNS + 1} can be read")
    if len(header) < 2:
        raise unreadable_table(
            "the table has a single column; it needs a time column and a numeric one, separated by commas, semicolons "
            "or tabs",
            row=1,
        )
    names: list[str] = []
    nameless: list[str] = []
    for position, cell in enumerate(header):
        name = cell.strip()
        if _NAMELESS.fullmatch(name):
            name = f"column {position + 1}"
            nameless.append(name)
        if name in names:
            raise unreadable_table(f"two columns are called {name!r}; rename one", row=1, column=name)
        names.append(name)
    return tuple(names), tuple(nameless)


def raw_from_frame(frame: pd.DataFrame) -> RawTable:
    """Take a frame for a raw table; an index of times becomes its first column. Rows count from 2, as in a file."""
    has_times = isinstance(frame.index, pd.DatetimeIndex | pd.PeriodIndex)
    if has_times:
        frame = frame.reset_index(names=_name_of_index(frame))
    names, nameless = column_names([str(name) for name in frame.columns])
    if frame.empty:
        raise unreadable_table("the frame has no rows")
    frame = frame.set_axis(list(names), axis=1).reset_index(drop=True)
    return RawTable(frame, np.arange(2, len(frame) + 2), nameless=nameless, time_column=names[0] if has_times else None)


def _name_of_index(frame: pd.DataFrame) -> str:
    columns = {str(column).strip() for column in frame.columns}
    if frame.index.name is None:
        lower = {column.lower() for column in columns}
        return next((name for name in ("time", *TIME_NAMES) if name not in lower), "index")
    name = str(frame.index.name)
    if name.strip() in columns:
        raise unreadable_table(
            f"the index and a column are both called {name!r}; rename one, or give the column alone with "
            "reset_index(drop=True)",
            column=name,
        )
    return name
