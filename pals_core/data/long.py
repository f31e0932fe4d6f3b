"""Long tables: one row for each series and time, in columns unique_id, ds and y."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from pals_core.data.clock import Clock
from pals_core.data.common_times import share_times
from pals_core.data.content import Content, decimal_comma, ignored_column
from pals_core.data.numbers import Numbers, read_numbers
from pals_core.data.profile import Finding
from pals_core.data.raw import LONG_TIME, LONG_VALUE, MAX_COLUMNS, SERIES_ID, RawTable, unreadable_table
from pals_core.data.time_column import TimeColumn
from pals_core.data.value_findings import find_in_values

Positions = npt.NDArray[np.intp]


def parse_long(raw: RawTable, time_column: TimeColumn) -> Content:
    """Turn the series into columns, in the order of their first rows, over all times on their common grid.

    Raises InvalidTable when y holds no numbers, a row names no series, or there are too many of them.
    """
    members = _members(raw)
    numbers = read_numbers(raw.frame[LONG_VALUE], decimal_comma=raw.decimal_comma)
    if numbers is None:
        raise unreadable_table(f"column {LONG_VALUE!r} holds no numbers", column=LONG_VALUE)
    value_findings = [ignored_column(name) for name in raw.unreadable]
    value_findings += [
        ignored_column(name) for name in raw.frame.columns if name not in (SERIES_ID, LONG_TIME, LONG_VALUE)
    ]
    if numbers.decimal_comma:
        value_findings.append(decimal_comma(LONG_VALUE))

    readable = np.asarray(time_column.times.notna())
    clocks: dict[str, Clock] = {}
    values: dict[str, npt.NDArray[np.float64]] = {}
    time_findings: list[Finding] = []
    for name, positions in members.items():
        value_findings += _value_findings(raw, numbers, name, positions)
        positions = positions[readable[positions]]
        clock = Clock(time_column.times[positions], raw.rows[positions], name)
        order, found = clock.in_order()
        time_findings += found
        clocks[name] = Clock(clock.times[order], clock.rows[order], name)
        values[name] = numbers.values[positions[order]]

    common = share_times(clocks, raw.frequencies)
    series: dict[str, npt.NDArray[np.float64]] = {}
    for name, clock in clocks.items():
        series[name] = np.full(len(common.times), np.nan)
        if common.spans[name].rows:
            series[name][common.times.get_indexer(clock.times)] = values[name]
    return Content(
        common.times,
        common.rows,
        series,
        common.frequency,
        (*time_findings, *common.findings),
        tuple(value_findings),
        tuple(common.spans.values()),
    )


def _members(raw: RawTable) -> dict[str, Positions]:
    """The positions of each series' rows, in the order of the file."""
    codes, names = pd.factorize(raw.frame[SERIES_ID])
    nameless = np.flatnonzero(codes < 0)
    if len(nameless):
        row = int(raw.rows[nameless[0]])
        raise unreadable_table(f"row {row} has no {SERIES_ID}; name the series of every row", row=row, column=SERIES_ID)
    if len(names) > MAX_COLUMNS:
        raise unreadable_table(f"the table has {len(names)} series; at most {MAX_COLUMNS} can be read")
    texts = [str(name) for name in names]
    if len(set(texts)) < len(texts):
        twice = next(text for position, text in enumerate(texts) if text in texts[:position])
        raise unreadable_table(
            f"two series are called {twice!r}, once by a number and once by a text; write the {SERIES_ID} of a series "
            "the same way in every row",
            column=SERIES_ID,
        )
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order])) + 1
    return dict(zip(texts, np.split(order, starts), strict=True))


def _value_findings(raw: RawTable, numbers: Numbers, name: str, positions: Positions) -> tuple[Finding, ...]:
    unreadable = np.flatnonzero(np.isin(positions, numbers.unreadable)) if len(numbers.unreadable) else positions[:0]
    example = str(raw.frame[LONG_VALUE].iloc[positions[unreadable[0]]]) if len(unreadable) else ""
    return find_in_values(name, numbers.values[positions], raw.rows[positions], unreadable, example)
