"""From raw cells to series over times, with everything that is wrong said on the way.

The one path behind `read_table`, `Table.from_frame` and `audit_table`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pals_core.data.grid import step_numbers
from pals_core.data.long import parse_long
from pals_core.data.profile import Finding, Layout, Span, TableProfile
from pals_core.data.raw import RawTable
from pals_core.data.split import Part
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
    spans: tuple[Part, ...] = ()  # of a long table: the positions in `times` of each series' own range

    def grid_spans(self) -> tuple[Part, ...]:
        """Return `spans` in steps of the regular grid, on which missing steps count."""
        if self.frequency is None or not self.spans:
            return ()
        steps = step_numbers(self.times, self.frequency)
        return tuple(
            Part(int(steps[span.start]), int(steps[span.stop - 1]) + 1) if span.rows else Part(0, 0)
            for span in self.spans
        )

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
            spans=self._profiled_spans(),
            findings=self.findings,
        )

    def _profiled_spans(self) -> tuple[Span, ...]:
        steps = [part.rows for part in self.grid_spans()] or [span.rows for span in self.spans]
        return tuple(
            Span(
                start=self.times[span.start].to_pydatetime() if span.rows else None,
                end=self.times[span.stop - 1].to_pydatetime() if span.rows else None,
                steps=count,
            )
            for span, count in zip(self.spans, steps, strict=True)
        )


def parse(raw: RawTable) -> ParsedTable:
    """Read the times, the numbers and the frequency of a wide or long table.

    Raises InvalidTable only when there is no time column, no numeric one, or the series of a long table cannot be told
    apart; all else becomes a finding.
    """
    time_column = find_time_column(raw)
    content = parse_long(raw, time_column) if raw.is_long else parse_wide(raw, time_column)
    # Order and frequency of guessed times would only hide the one finding that matters.
    guessed = time_column.ambiguous
    return ParsedTable(
        layout=Layout.LONG if raw.is_long else Layout.WIDE,
        time_column=time_column.name,
        rows=len(raw.frame),
        times=content.times[:0] if guessed else content.times,
        series=content.series,
        frequency=None if guessed else content.frequency,
        findings=(*time_column.findings, *(() if guessed else content.time_findings), *content.value_findings),
        spans=() if guessed else content.spans,
    )
