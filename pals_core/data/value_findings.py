"""What may be wrong with the values of one series."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pals_core.data.profile import Finding, FindingCode, Severity
from pals_core.data.scaling import is_constant


def find_in_values(
    name: str,
    values: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
    unreadable: npt.NDArray[np.intp],
    first_unreadable: str,
) -> tuple[Finding, ...]:
    """Return the findings of one column or series.

    `values`, [n], is NaN where a cell is empty or unreadable; `rows` are the rows of the file they stand in;
    `unreadable` the positions of cells that are no numbers, the first one reading `first_unreadable`.
    """
    findings: list[Finding] = []

    def add(severity: Severity, code: FindingCode, message: str, remedy: str, row: int | None, count: int) -> None:
        findings.append(
            Finding(
                severity=severity,
                code=code,
                message=message,
                remedy=remedy,
                row=row,
                column=name,
                count=max(1, count),
                cured_by_missing_policy=code is FindingCode.MISSING_VALUES,
            )
        )

    if len(unreadable):
        row = int(rows[unreadable[0]])
        add(
            Severity.ERROR,
            FindingCode.NON_NUMERIC_CELL,
            f"row {row}, column {name!r}: {first_unreadable!r} is not a number",
            "write numbers with a decimal point and without units or thousands separators; leave missing cells empty",
            row,
            len(unreadable),
        )
    missing = np.isnan(values)
    missing[unreadable] = False
    if missing.all():
        add(
            Severity.ERROR,
            FindingCode.EMPTY_COLUMN,
            f"column {name!r} has no values",
            "fill the column, or leave it out of the targets",
            None,
            len(values),
        )
        return tuple(findings)
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        row = int(rows[infinite[0]])
        add(
            Severity.ERROR,
            FindingCode.INFINITE_VALUE,
            f"row {row}, column {name!r}: the value is infinite",
            "replace it by a number, or leave the cell empty",
            row,
            len(infinite),
        )
    if missing.any():
        first = int(rows[int(np.argmax(missing))])
        add(
            Severity.ERROR,
            FindingCode.MISSING_VALUES,
            f"column {name!r} misses {int(missing.sum())} of {len(values)} values, the first in row {first}",
            "fill the cells, or choose the missing policy interpolate, ffill or mask",
            first,
            int(missing.sum()),
        )
    known = values[~np.isnan(values)]
    if len(known) > 1 and is_constant(known.min(), known.max()):
        add(
            Severity.WARNING,
            FindingCode.CONSTANT_COLUMN,
            f"column {name!r} is {known[0]:g} throughout",
            "leave the column out of the targets: there is nothing to learn from it",
            None,
            len(known),
        )
    return tuple(findings)
