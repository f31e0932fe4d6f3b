"""What a table of either layout comes down to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pals_core.data.profile import Finding, FindingCode, Severity
from pals_core.data.split import Part


@dataclass(frozen=True)
class Content:
    """Series over sorted, distinct times, on the regular grid of `frequency` where there is one."""

    times: pd.DatetimeIndex  # [n]
    rows: npt.NDArray[np.int64]  # [n], the row of the file each time stands in
    series: dict[str, npt.NDArray[np.float64]]  # [n] each
    frequency: str | None
    time_findings: tuple[Finding, ...]
    value_findings: tuple[Finding, ...]
    spans: tuple[Part, ...] = ()  # of a long table: the positions in `times` that each series' own rows reach over


def ignored_column(name: str) -> Finding:
    """Say that a column is not a series."""
    return Finding(
        severity=Severity.WARNING,
        code=FindingCode.IGNORED_COLUMN,
        message=f"column {name!r} is left out: it does not hold numbers under a name of its own",
        remedy="nothing to do, unless the column should be a series",
        column=name,
    )


def decimal_comma(name: str) -> Finding:
    """Say that `1,5` was read as 1.5."""
    return Finding(
        severity=Severity.WARNING,
        code=FindingCode.DECIMAL_COMMA,
        message=f"column {name!r} has decimal commas, which were read as decimal points",
        remedy="nothing to do, if the commas are decimal commas; else remove them",
        column=name,
    )
