"""The audit of an uploaded file, and the profile of a table in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pals_core.data.common_times import unequal_ranges
from pals_core.data.files import raw_from_file
from pals_core.data.parse import parse
from pals_core.data.profile import Span, TableProfile
from pals_core.data.table import Table
from pals_core.data.value_findings import find_in_values


def audit_table(path: str | Path) -> TableProfile:
    """Return the shape of a CSV, gzip'd CSV or Parquet file and everything that is wrong with it.

    Raises InvalidTable only when it is not a readable table with a time column and a numeric one.
    """
    return parse(raw_from_file(path)).profile()


def profile_of(table: Table) -> TableProfile:
    """Return what `audit_table` would say of a file that holds this table; missing steps count as missing values."""
    steps = len(table.times)
    rows, no_cells = np.arange(2, steps + 2), np.array([], dtype=np.intp)
    spans = [slice(span.start, span.stop) for span in map(table.span_of, table.columns)]
    return TableProfile(
        layout=table.layout,
        time_column="time",
        columns=table.columns,
        rows=steps,
        steps=steps,
        start=table.times[0].to_pydatetime() if steps else None,
        end=table.times[-1].to_pydatetime() if steps else None,
        frequency=table.frequency,
        spans=tuple(
            Span(
                start=table.times[span.start].to_pydatetime() if span.rows else None,
                end=table.times[span.stop - 1].to_pydatetime() if span.rows else None,
                steps=span.rows,
            )
            for span in table.spans
        ),
        findings=(
            *unequal_ranges(dict(zip(table.columns, table.spans, strict=False))),
            *(
                finding
                for position, (name, own) in enumerate(zip(table.columns, spans, strict=True))
                for finding in find_in_values(name, table.values[own, position], rows[own], no_cells, "")
            ),
        ),
    )
