"""What an audit found in a table: plain facts that travel as JSON, free of pandas and torch."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


class FindingCode(StrEnum):
    NON_NUMERIC_CELL = "non_numeric_cell"
    INFINITE_VALUE = "infinite_value"
    MISSING_VALUES = "missing_values"
    EMPTY_COLUMN = "empty_column"
    IGNORED_COLUMN = "ignored_column"
    DECIMAL_COMMA = "decimal_comma"
    CONSTANT_COLUMN = "constant_column"
    INVALID_TIME = "invalid_time"
    DUPLICATE_TIME = "duplicate_time"
    UNSORTED_TIME = "unsorted_time"
    MISSING_TIMES = "missing_times"
    UNKNOWN_FREQUENCY = "unknown_frequency"
    UNEQUAL_SERIES = "unequal_series"
    TIMES_CONVERTED_TO_UTC = "times_converted_to_utc"
    TIME_ZONE_LEFT_OUT = "time_zone_left_out"


class Finding(BaseModel):
    """One observation about the table: how bad, what, where, and what to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    severity: Severity
    code: FindingCode
    message: str
    remedy: str
    row: int | None = Field(None, description="Line of the file, the header being row 1; null when it concerns many.")
    column: str | None = Field(None, description="Column (or series id) it touches; null when it touches all.")
    count: int = Field(1, ge=1, description="How many cells or rows are affected.")
    cured_by_missing_policy: bool = Field(
        False, description="True when a `missing` policy other than `error` repairs it."
    )


class Layout(StrEnum):
    WIDE = "wide"
    LONG = "long"


class Span(BaseModel):
    """The time range of one series of a long table, from its first row to its last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: datetime | None = Field(description="Null when no row of it has a time that can be read.")
    end: datetime | None
    steps: int = Field(ge=0, description="Time steps, missing ones included; 0 off the grid of the others.")


class TableProfile(BaseModel):
    """The audited shape of a series table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: Layout
    time_column: str
    columns: tuple[str, ...] = Field(description="Numeric columns, or the series ids of a long table.")
    rows: int = Field(ge=0, description="Rows in the file, without the header.")
    steps: int = Field(ge=0, description="Time steps on the regular grid, missing ones included.")
    start: datetime | None
    end: datetime | None
    frequency: str | None = Field(description="pandas offset alias of the grid (h, D, W-SAT, MS, 15min …).")
    spans: tuple[Span, ...] = Field(
        (), description="The range of each series of a long table; empty for a wide one, whose columns share one."
    )
    findings: tuple[Finding, ...] = ()

    def spans_by_column(self) -> dict[str, Span]:
        """Return the range of each column."""
        if not self.spans:
            return dict.fromkeys(self.columns, Span(start=self.start, end=self.end, steps=self.steps))
        return dict(zip(self.columns, self.spans, strict=True))

    def errors_for(self, columns: tuple[str, ...], *, missing_is_cured: bool) -> tuple[Finding, ...]:
        """The findings that forbid training on `columns` under the given `missing` policy."""
        return tuple(
            finding
            for finding in self.findings
            if finding.severity is Severity.ERROR
            and (finding.column is None or finding.column in columns)
            and not (missing_is_cured and finding.cured_by_missing_policy)
        )
