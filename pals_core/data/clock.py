"""The times of a table or of one series of it: sorted or not, doubled or not, regular or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pals_core.data.grid import are_steps, infer_frequency, step_numbers
from pals_core.data.profile import Finding, FindingCode, Severity


@dataclass(frozen=True)
class Clock:
    """Times in the order of the file, each readable, and the rows they stand in."""

    times: pd.DatetimeIndex  # [n]
    rows: npt.NDArray[np.int64]  # [n]
    series: str | None = None  # the series of a long table they belong to

    @property
    def whose(self) -> str:
        return "" if self.series is None else f"of series {self.series!r} "

    def in_order(self) -> tuple[npt.NDArray[np.intp], tuple[Finding, ...]]:
        """Return the positions of sorted, distinct times, the first of doubled ones, and what was found wrong."""
        microseconds = self.times.asi8
        backwards = np.flatnonzero(np.diff(microseconds) < 0) + 1
        order: npt.NDArray[np.intp] = np.arange(len(microseconds))
        findings: list[Finding] = []
        if len(backwards):
            findings.append(
                self._finding(
                    FindingCode.UNSORTED_TIME,
                    backwards,
                    f"the time {self.times[backwards[0]]} is earlier than that of the row above",
                    "sort the rows by time",
                )
            )
            order = np.argsort(microseconds, kind="stable")
        repeats = np.diff(microseconds[order]) == 0
        if repeats.any():
            doubled = np.sort(order[1:][repeats])
            findings.append(
                self._finding(
                    FindingCode.DUPLICATE_TIME,
                    doubled,
                    f"the time {self.times[doubled[0]]} stands in the table already",
                    "keep one row for each time; for several series use columns unique_id, ds, y; write day and time "
                    "of day into one column, and local times that occur twice when clocks go back in UTC",
                )
            )
            order = order[np.concatenate(([True], ~repeats))]
        return order, tuple(findings)

    def _finding(self, code: FindingCode, positions: npt.NDArray[np.intp], message: str, remedy: str) -> Finding:
        row = int(self.rows[positions[0]])
        return Finding(
            severity=Severity.ERROR,
            code=code,
            message=f"row {row} {self.whose}".rstrip() + f": {message}",
            remedy=remedy,
            row=row,
            column=self.series,
            count=len(positions),
        )


def frequency_of(clock: Clock, known: Sequence[str] = ()) -> tuple[str | None, tuple[Finding, ...]]:
    """Return the frequency of sorted, distinct times, None for irregular ones, and what was found: gaps, or why.

    Where times tell none by themselves it is the first of those `known` on whose steps all of them lie.
    """
    frequency = infer_frequency(clock.times)
    if not isinstance(frequency, str):
        frequency = next((known_one for known_one in known if are_steps(clock.times, known_one)), frequency)
    if isinstance(frequency, str):
        return frequency, gaps_of(clock, step_numbers(clock.times, frequency), frequency)
    row = int(clock.rows[frequency.position]) if len(clock.rows) else None
    where = f"row {row}: " if row is not None else ""
    finding = Finding(
        severity=Severity.ERROR,
        code=FindingCode.UNKNOWN_FREQUENCY,
        message=f"the times are not regular: {where}{frequency.reason}",
        remedy="bring the table to one frequency, such as hourly or daily; date months by their first or last day",
        row=row,
    )
    return None, (finding,)


def gaps_of(clock: Clock, steps: npt.NDArray[np.int64], frequency: str) -> tuple[Finding, ...]:
    """Return what is to say about the steps that sorted, distinct times leave out; `steps` are their numbers."""
    skipped = np.diff(steps) - 1
    if not skipped.any():
        return ()
    after_gap = int(np.flatnonzero(skipped)[0]) + 1
    row = int(clock.rows[after_gap])
    finding = Finding(
        severity=Severity.ERROR,
        code=FindingCode.MISSING_TIMES,
        message=f"{int(skipped.sum())} time steps {clock.whose}are missing at frequency {frequency}, the first before "
        f"row {row} ({clock.times[after_gap]})",
        remedy="add the missing rows, or choose the missing policy interpolate, ffill or mask",
        row=row,
        column=clock.series,
        count=int(skipped.sum()),
        cured_by_missing_policy=True,
    )
    return (finding,)
