"""The series table: numeric columns on a complete, regular time grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pals_core.data.files import raw_from_file
from pals_core.data.grid import grid, step_numbers
from pals_core.data.parse import ParsedTable, parse
from pals_core.data.raw import RawTable, raw_from_frame
from pals_core.errors import InvalidSpec, InvalidTable, Problem


@dataclass(frozen=True)
class Table:
    """Columns of numbers over time steps without gaps; a missing value is NaN."""

    times: pd.DatetimeIndex  # [steps], without time zone
    values: npt.NDArray[np.float64]  # [steps, C]
    columns: tuple[str, ...]
    frequency: str  # pandas offset alias

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.times), len(self.columns)):
            message = (
                f"the values have shape {self.values.shape}; {len(self.times)} time steps and "
                f"{len(self.columns)} columns were named"
            )
            raise InvalidTable(message, (Problem(message),))

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Table:
        """Build a table from a wide frame (time column or DatetimeIndex) or a long one (unique_id, ds, y).

        Raises InvalidTable as `read_table` does, counting rows as if the frame were written to a file with a header.
        """
        return _table(raw_from_frame(frame), None)

    def select(self, columns: Sequence[str]) -> Table:
        """Return the table with these columns alone, in this order; raises InvalidSpec for an unknown one."""
        unknown = [(position, name) for position, name in enumerate(columns) if name not in self.columns]
        if unknown:
            problems = tuple(
                Problem(f"the table has no column {name!r}", pointer=f"/data/targets/{position}", column=name)
                for position, name in unknown
            )
            raise InvalidSpec(f"{problems[0].message}; it has {', '.join(self.columns)}", problems)
        positions = [self.columns.index(name) for name in columns]
        return Table(self.times, self.values[:, positions], tuple(columns), self.frequency)


def read_table(path: Path, columns: Sequence[str] | None = None) -> Table:
    """Read a CSV, gzip'd CSV or Parquet file, told apart by content; `columns` keeps these alone.

    Missing cells and missing time steps become NaN. Raises InvalidTable, each problem with its row and column, for
    whatever cannot be a table: cells that are no numbers, times that are unsorted, doubled or without a frequency,
    series of unequal length. Problems of columns that `columns` leaves out do not count. Raises InvalidSpec for an
    unknown column.
    """
    return _table(raw_from_file(path), columns)


def _table(raw: RawTable, columns: Sequence[str] | None) -> Table:
    parsed = parse(raw)
    wanted = tuple(parsed.series) if columns is None else tuple(columns)
    errors = parsed.profile().errors_for(wanted, missing_is_cured=True)
    # Irregular times are an error finding, so the frequency is known where there is none.
    if errors or parsed.frequency is None:
        problems = tuple(
            Problem(f"{finding.message}; {finding.remedy}", row=finding.row, column=finding.column)
            for finding in errors
        )
        raise InvalidTable(problems[0].message if problems else "the table has no frequency", problems)
    table = _on_grid(parsed, parsed.frequency)
    return table if columns is None else table.select(columns)


def _on_grid(parsed: ParsedTable, frequency: str) -> Table:
    times = grid(parsed.times, frequency)
    values = np.full((len(times), len(parsed.series)), np.nan)
    rows = step_numbers(parsed.times, frequency)
    for position, series in enumerate(parsed.series.values()):
        values[rows, position] = series
    return Table(times, values, tuple(parsed.series), frequency)
