"""Wide tables: a time column and one column for each series."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pals_core.data.clock import Clock, frequency_of
from pals_core.data.content import Content, decimal_comma, ignored_column
from pals_core.data.numbers import read_numbers
from pals_core.data.profile import Finding
from pals_core.data.raw import RawTable, unreadable_table
from pals_core.data.time_column import TimeColumn
from pals_core.data.value_findings import find_in_values


def parse_wide(raw: RawTable, time_column: TimeColumn) -> Content:
    """Read the columns next to the time column; rows without a readable time are left out of the series.

    Raises InvalidTable when there is no numeric column.
    """
    readable = np.flatnonzero(np.asarray(time_column.times.notna()))
    clock = Clock(time_column.times[readable], raw.rows[readable])
    order, time_findings = clock.in_order()
    kept = readable[order]
    everything = len(kept) == len(raw.frame) and not time_findings

    series: dict[str, npt.NDArray[np.float64]] = {}
    findings: list[Finding] = [ignored_column(name) for name in raw.unreadable]
    for name in raw.frame.columns:
        if name == time_column.name:
            continue
        cells = raw.frame[name]
        numbers = None if name in raw.nameless else read_numbers(cells, decimal_comma=raw.decimal_comma)
        if numbers is None:
            findings.append(ignored_column(name))
            continue
        if numbers.decimal_comma:
            findings.append(decimal_comma(name))
        example = str(cells.iloc[numbers.unreadable[0]]) if len(numbers.unreadable) else ""
        findings.extend(find_in_values(name, numbers.values, raw.rows, numbers.unreadable, example))
        series[name] = numbers.values if everything else numbers.values[kept]
    if not series:
        raise unreadable_table(
            f"no numeric column next to the time column {time_column.name!r}; at least half of a column's cells must "
            "be numbers"
        )
    frequency, frequency_findings = frequency_of(Clock(clock.times[order], clock.rows[order]), raw.frequencies)
    time_findings = (*time_findings, *frequency_findings)
    return Content(clock.times[order], clock.rows[order], series, frequency, time_findings, tuple(findings))
