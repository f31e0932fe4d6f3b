"""The series table: numeric columns on a complete, regular time grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from pals_core.data.files import raw_from_file, raw_of
from pals_core.data.grid import grid, is_consecutive, step_numbers
from pals_core.data.parse import ParsedTable, parse
from pals_core.data.profile import Finding, FindingCode, Layout
from pals_core.data.raw import LONG_VALUE, RawTable, raw_from_frame
from pals_core.data.split import Part
from pals_core.errors import InvalidSpec, InvalidTable, Problem, listed

# What was read otherwise than it stands there.
_TOLD = (FindingCode.TIMES_CONVERTED_TO_UTC, FindingCode.TIME_ZONE_LEFT_OUT, FindingCode.DECIMAL_COMMA)
_LONGEST_NOTE = 1000  # characters; names of columns may have any length


@dataclass(frozen=True)
class Table:
    """Columns of numbers over time steps without gaps; a missing value is NaN.

    Raises InvalidTable when times, values and columns do not fit one another; `from_frame` brings what has gaps, a time
    zone or no known frequency into this form.
    """

    times: pd.DatetimeIndex  # [steps], without time zone
    values: npt.NDArray[np.float64]  # [steps, C]
    columns: tuple[str, ...]
    frequency: str  # pandas offset alias
    # The rows of each series of a long table, from first to last; empty for a wide one, whose columns share all.
    spans: tuple[Part, ...] = ()
    # What was understood otherwise than it stands there, or left out, when the table was read.
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.times), len(self.columns)):
            message = (
                f"the values have shape {self.values.shape}; {len(self.times)} time steps and "
                f"{len(self.columns)} columns were named"
            )
            raise InvalidTable(message, (Problem(message),))
        if twice := [name for name, count in Counter(self.columns).items() if count > 1]:
            message = f"a column {twice[0]!r} is there twice; each needs a name of its own"
            raise InvalidTable(message, (Problem(message, column=twice[0]),))
        if self.times.tz is not None:
            message = "the times have a time zone; give them in UTC, without one, or use Table.from_frame"
            raise InvalidTable(message, (Problem(message),))
        if self.spans and len(self.spans) != len(self.columns):
            message = f"the table has {len(self.columns)} columns and the ranges of {len(self.spans)}"
            raise InvalidTable(message, (Problem(message),))

    def require_steps(self) -> None:
        """Raise InvalidTable unless the times are steps of the frequency, one after the other."""
        if len(self.times) and not is_consecutive(self.times, self.frequency):
            message = (
                f"the times are not steps of {self.frequency}, one after the other; Table.from_frame finds the "
                "frequency and fills gaps with missing values"
            )
            raise InvalidTable(message, (Problem(message),))

    @property
    def layout(self) -> Layout:
        return Layout.LONG if self.spans else Layout.WIDE

    def span_of(self, column: str) -> Part:
        """Return the rows of a column that is there."""
        return self.spans[self.columns.index(column)] if self.spans else Part(0, len(self.times))

    def between(self, rows: Part) -> Table:
        """Return these rows as a wide table."""
        kept = slice(rows.start, rows.stop)
        return Table(self.times[kept], self.values[kept], self.columns, self.frequency)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        columns: Sequence[str] | None = None,
        where_there: Sequence[str] = (),
        frequencies: Sequence[str] = (),
    ) -> Table:
        """Build a table from a wide frame (time column or DatetimeIndex) or a long one (unique_id, ds, y).

        `columns`, `where_there` and `frequencies` are those of `read_table`. Raises InvalidTable and InvalidSpec as
        that does, counting rows as if the frame were written to a file with a header.
        """
        return _table(raw_from_frame(frame), columns, where_there, frequencies)

    def select(self, columns: Sequence[str], known_future: Sequence[str] = ()) -> Table:
        """Return the table with these columns alone, in this order, over the rows that one of them reaches.

        Raises InvalidSpec for an unknown one.
        """
        named = [*enumerate(columns), *enumerate(known_future)]
        fields = ["targets"] * len(columns) + ["known_future"] * len(known_future)
        problems = tuple(
            Problem(_no_column(name), pointer=f"/data/{field}/{position}", column=name)
            for field, (position, name) in zip(fields, named, strict=True)
            if name not in self.columns
        )
        if problems:
            raise InvalidSpec(f"{problems[0].message}; it has {listed(self.columns)}", problems)
        places = {name: place for place, name in enumerate(self.columns)}
        positions = [places[name] for _, name in named]
        rows = slice(None)
        spans = tuple(self.spans[position] for position in positions) if self.spans else ()
        if spans:
            first, last = min(span.start for span in spans), max(span.stop for span in spans)
            rows = slice(first, last)
            spans = tuple(Part(span.start - first, span.stop - first) for span in spans)
        names = tuple(name for _, name in named)
        return replace(self, times=self.times[rows], values=self.values[rows][:, positions], columns=names, spans=spans)


def _no_column(name: str) -> str:
    return f"the table has no column {name!r}"


def read_table(
    path: str | Path,
    columns: Sequence[str] | None = None,
    where_there: Sequence[str] = (),
    frequencies: Sequence[str] = (),
) -> Table:
    """Read a CSV, gzip'd CSV or Parquet file, told apart by content.

    `columns` keeps these alone, and those of `where_there` that are there. `frequencies` are tried where the times tell
    none by themselves, being few or full of gaps.

    Missing cells and missing time steps become NaN. Raises InvalidTable, each problem with its row and column, for
    whatever cannot be a table: cells that are no numbers, times that are unsorted, doubled or without a frequency,
    series that do not lie on one grid. Series of a long table may begin and end when they like. Problems of columns
    that `columns` leaves out do not count. Raises InvalidSpec for an unknown column.
    """
    return _table(raw_from_file(path), columns, where_there, frequencies)


def table_of(
    given: pd.DataFrame | str | Path,
    columns: Sequence[str] | None,
    where_there: Sequence[str] = (),
    frequencies: Sequence[str] = (),
) -> Table:
    """Return the table of a frame or a file with the columns that are needed, as `read_table` does.

    So nothing in another column is a problem. If one of `columns` is missing it has all there are, for whoever knows
    what they are for to say which; only where these cannot be read is it an InvalidSpec here.
    """
    raw = raw_of(given)
    try:
        return _table(raw, columns, where_there, frequencies)
    except InvalidSpec as missing:
        try:
            return _table(raw, None, (), frequencies)
        except InvalidTable:
            raise missing from None


def _table(
    raw: RawTable, columns: Sequence[str] | None, where_there: Sequence[str], frequencies: Sequence[str]
) -> Table:
    parsed = parse(replace(raw, frequencies=tuple(frequencies)))
    if columns is not None:
        columns = (*columns, *(name for name in where_there if name in parsed.series))
    wanted = tuple(parsed.series) if columns is None else tuple(columns)
    errors = parsed.profile().errors_for(wanted, missing_is_cured=True)
    # Irregular times are an error finding, so the frequency is known where there is none.
    if errors or parsed.frequency is None:
        problems = tuple(
            Problem(f"{finding.message}; {finding.remedy}", row=finding.row, column=finding.column)
            for finding in errors
        )
        raise InvalidTable(problems[0].message if problems else "the table has no frequency", problems)
    if unknown := tuple(Problem(_no_column(name), column=name) for name in wanted if name not in parsed.series):
        raise InvalidSpec(f"{unknown[0].message}; it has {listed(tuple(parsed.series))}", unknown)
    table = _on_grid(parsed, parsed.frequency, wanted)
    return replace(table, notes=_notes(parsed, wanted, chosen=columns is not None))


def _notes(parsed: ParsedTable, wanted: Sequence[str], *, chosen: bool) -> tuple[str, ...]:
    """Return what concerns the columns `wanted`, or the times; what is left out, unless it was not `chosen`."""
    read = {None, *wanted, *((LONG_VALUE,) if parsed.layout is Layout.LONG else ())}
    found: dict[FindingCode, list[Finding]] = {}
    for finding in parsed.findings:
        told = finding.code in _TOLD and finding.column in read
        if told or (finding.code is FindingCode.IGNORED_COLUMN and not chosen):
            found.setdefault(finding.code, []).append(finding)
    notes = []
    for first, *others in found.values():
        more = f"; so have {listed([str(other.column) for other in others])}" if others else ""
        notes.append(f"{first.message}{more}; {first.remedy}"[:_LONGEST_NOTE])
    return tuple(notes)


def _on_grid(parsed: ParsedTable, frequency: str, names: Sequence[str]) -> Table:
    spans = dict(zip(parsed.series, parsed.grid_spans(), strict=False))
    steps = step_numbers(parsed.times, frequency)
    chosen = tuple(spans[name] for name in names if name in spans)
    first = min((span.start for span in chosen), default=0)
    last = max((span.stop for span in chosen), default=int(steps[-1]) + 1)
    kept = (steps >= first) & (steps < last)
    times = grid(parsed.times[kept], frequency)
    rows = steps[kept] - first
    values = np.full((last - first, len(names)), np.nan)
    for position, name in enumerate(names):
        values[rows, position] = parsed.series[name][kept]
    return Table(
        times, values, tuple(names), frequency, tuple(Part(span.start - first, span.stop - first) for span in chosen)
    )
