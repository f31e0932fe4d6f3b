"""From raw cells to series over times, with everything that is wrong said on the way.

The one path behind `read_table`, `Table.from_frame` and `audit_table`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pals_core.data.clock import Clock, frequency_of
from pals_core.data.grid import step_numbers
from pals_core.data.long import parse_long
from pals_core.data.profile import Finding, Layout, TableProfile
from pals_core.data.raw import RawTable
from pals_core.data.time_column import find_time_column
from pals_core.data.wide import parse_wide


@dataclass(frozen=True)
class ParsedTable:
    """Series over sorted, distinct times; true to the file where no finding is an error."""

    layout: Layout
    time_column: str
    rows: int  # of the file, without its header
    times: pd.DatetimeIndex  # [n], without time zone; steps may be missing
    series: dict[str, npt.NDArray[np.float64]]  # [n] each; NaN where a value is missing
    frequency: str | None
    findings: tuple[Finding, ...]

    def profile(self) -> TableProfile:
        """Return what the audit says."""
        known = len(self.times) > 0
        return TableProfile(
            layout=self.layout,
            time_column=self.time_column,
            columns=tuple(self.series),
            rows=self.rows,
            steps=int(step_numbers(self.times, self.frequency)[-1]) + 1 if self.frequency else len(self.times),
            start=self.times[0].to_pydatetime() if known else None,
            end=self.times[-1].to_pydatetime() if known else None,
            frequency=self.frequency,
            findings=self.findings,
        )


def parse(raw: RawTable) -> ParsedTable:
    """Read the times, the numbers and the frequency of a wide or long table.

    Raises InvalidTable only when there is no time column, no numeric one, or the series of a long table cannot be told
    apart; all else becomes a finding.
    """
    time_column = find_time_column(raw)
    content = parse_long(raw, time_column) if raw.is_long else parse_wide(raw, time_column)
    frequency: str | None = None
    time_findings = content.time_findings
    if time_column.ambiguous:
        # Order and frequency of guessed times would only hide the one finding that matters.
        time_findings = ()
    else:
        frequency, frequency_findings = frequency_of(Clock(content.times, content.rows))
        time_findings = (*time_findings, *frequency_findings)
    return ParsedTable(
        layout=Layout.LONG if raw.is_long else Layout.WIDE,
        time_column=time_column.name,
        rows=len(raw.frame),
        times=content.times[:0] if time_column.ambiguous else content.times,
        series=content.series,
        frequency=frequency,
        findings=(*time_column.findings, *time_findings, *content.value_findings),
    )
