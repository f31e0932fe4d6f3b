"""Finding the time column of a raw table and reading its times."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pals_core.data.frequency import is_of_days
from pals_core.data.profile import Finding, FindingCode, Severity
from pals_core.data.raw import LONG_TIME, TIME_NAMES, RawTable, unreadable_table
from pals_core.errors import InvalidTable

# How a cell ends when it tells the time of day, and how that is read.
_CLOCKS = (
    (re.compile(r"(?<![\d:])\d{1,2}:\d\d$"), " %H:%M"),
    (re.compile(r"\d:\d\d:\d\d$"), " %H:%M:%S"),
    (re.compile(r"\d:\d\d:\d\d\.\d+$"), " %H:%M:%S.%f"),
    (re.compile(r"(?<![\d:])\d{1,2}:\d\d [AaPp][Mm]$"), " %I:%M %p"),
    (re.compile(r"\d:\d\d:\d\d [AaPp][Mm]$"), " %I:%M:%S %p"),
)
_DAY_FIRST = tuple(f"%d{mark}%m{mark}{year}" for mark in "/-" for year in ("%Y", "%y"))
_MONTH_FIRST = tuple(f"%m{mark}%d{mark}{year}" for mark in "/-" for year in ("%Y", "%y"))
# A point between day and month is written day first everywhere.
_UNAMBIGUOUS = ("%d.%m.%Y", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%b %Y", "%B %Y", "%b-%Y")
_DAYS = (*_UNAMBIGUOUS, *_DAY_FIRST, *_MONTH_FIRST)
_ZONE = r"(?:Z|[+-]\d{2}(?::?\d{2})?)$"
_ZONED = r"\d:\d{2}.*" + _ZONE
_SAMPLE = 500


@dataclass(frozen=True)
class TimeColumn:
    """The times of each row, NaT where there is none that can be read, and what is to say about them."""

    name: str
    times: pd.DatetimeIndex  # without time zone, microseconds
    findings: tuple[Finding, ...]
    ambiguous: bool = False  # day first and month first both read, so that `times` is a guess


def find_time_column(raw: RawTable) -> TimeColumn:
    """Return the time column: `ds` of a long table, else the index of a frame, else one called date, ds, timestamp,
    time or datetime in any case, else the first that reads as times.

    Raises InvalidTable when there is none.
    """
    if raw.is_long:
        named = [LONG_TIME]
    elif raw.time_column is not None:
        named = [raw.time_column]
    else:
        spelled = {name.lower(): name for name in reversed(raw.frame.columns)}
        named = [spelled[name] for name in TIME_NAMES if name in spelled]
    for name in named:
        column = _read(raw, name)
        if not column.times.isna().all():
            return column
    # Numbers under such a name may be something else, hours of the day for one.
    if named and not all(pd.api.types.is_numeric_dtype(raw.frame[name]) for name in named):
        raise _no_times(raw, named[0])
    for name in raw.frame.columns:
        # Whole numbers could be years by chance, so they need a name that says so.
        if not pd.api.types.is_numeric_dtype(raw.frame[name]) and _parse(raw.frame[name].head(_SAMPLE), 2).reads_most:
            return _read(raw, name)
    if named:
        raise _no_times(raw, named[0])
    raise unreadable_table(
        f"no time column: none is called {', '.join(TIME_NAMES)}, and none of "
        f"{', '.join(raw.frame.columns[:10])} holds times such as 2024-01-31 13:00:00",
        row=1,
    )


def _no_times(raw: RawTable, name: str) -> InvalidTable:
    return unreadable_table(
        f"column {name!r} holds no times: its first cell is {str(raw.frame[name].iloc[0])!r}; write them as "
        "2024-01-31 13:00:00",
        row=int(raw.rows[0]),
        column=name,
    )


def _read(raw: RawTable, name: str) -> TimeColumn:
    cells = raw.frame[name]
    # One midnight alone may be any time of day's, unless it is known that the steps are days.
    fewest_days = 1 if raw.frequencies and all(map(is_of_days, raw.frequencies)) else 2
    parsed = _parse(cells, fewest_days)
    findings: list[Finding] = []
    if parsed.zoned:
        findings.append(_about_zone(name, local_days=parsed.local_days))
    invalid = np.flatnonzero(parsed.times.isna())
    if parsed.ambiguous:
        row = int(raw.rows[0])
        findings.append(
            Finding(
                severity=Severity.ERROR,
                code=FindingCode.INVALID_TIME,
                message=f"the times in column {name!r}, such as {str(cells.iloc[0])!r}, read both day first and month "
                "first",
                remedy="write them as 2024-01-31 13:00:00",
                row=row,
                count=len(cells),
            )
        )
    elif len(invalid):
        row = int(raw.rows[invalid[0]])
        cell = cells.iloc[invalid[0]]
        shown = "an empty cell" if pd.isna(cell) or not str(cell).strip() else repr(str(cell))
        findings.append(
            Finding(
                severity=Severity.ERROR,
                code=FindingCode.INVALID_TIME,
                message=f"row {row} has {shown} for a time in column {name!r}{parsed.reason}",
                remedy="write every time in one format, such as 2024-01-31 13:00:00",
                row=row,
                count=len(invalid),
            )
        )
    return TimeColumn(name, parsed.times, tuple(findings), parsed.ambiguous)


def _about_zone(name: str, *, local_days: bool) -> Finding:
    code = FindingCode.TIMES_CONVERTED_TO_UTC
    message = f"column {name!r} has times with a time zone; they were converted to UTC"
    remedy = "nothing to do, if hours and days may be counted in UTC; else write local times without a zone"
    if local_days:
        code = FindingCode.TIME_ZONE_LEFT_OUT
        message = f"column {name!r} has times with a time zone, midnight there in every row; they were read as days, "
        message += "without the zone"
        remedy = "nothing to do, if each row is a day or a longer step there; else write the times in UTC"
    return Finding(severity=Severity.WARNING, code=code, message=message, remedy=remedy)


@dataclass(frozen=True)
class _Parsed:
    times: pd.DatetimeIndex
    zoned: bool = False
    local_days: bool = False  # zoned, and taken as they stand there
    ambiguous: bool = False
    reason: str = ""

    @property
    def reads_most(self) -> bool:
        return 2 * _known(self.times) > len(self.times)


def _parse(cells: pd.Series, fewest_days: int) -> _Parsed:
    """Read the times of cells; so many midnights of a zone, and nothing else, are days there."""
    if isinstance(cells.dtype, pd.DatetimeTZDtype):
        return _without_zone(_naive(cells), _naive(cells.dt.tz_localize(None)), fewest_days)
    if pd.api.types.is_datetime64_dtype(cells.dtype):
        return _Parsed(_naive(cells))
    if isinstance(cells.dtype, pd.PeriodDtype):
        return _Parsed(_naive(cells.dt.to_timestamp()))
    if pd.api.types.is_numeric_dtype(cells.dtype):
        return _parse_numbers(cells)
    text = cells.astype("str").str.strip()
    text = text.where(text != "")
    iso = _parse_iso(text, fewest_days)
    if iso.reason or _known(iso.times) == int(text.notna().sum()):
        return iso
    formatted = _parse_formats(text)
    return formatted if _known(formatted.times) > _known(iso.times) else iso


def _known(times: pd.DatetimeIndex) -> int:
    return int(np.asarray(times.notna()).sum())


def _naive(cells: pd.Series) -> pd.DatetimeIndex:
    times = pd.DatetimeIndex(cells)
    return (times if times.tz is None else times.tz_convert("UTC").tz_localize(None)).as_unit("us")


def _without_zone(utc: pd.DatetimeIndex, local: pd.DatetimeIndex, fewest_days: int) -> _Parsed:
    """In UTC, where a day begins at another hour once clocks change, days would not be regular; nor would months."""
    readable = local[local.notna()]
    midnights = bool((readable == readable.normalize()).all())
    days = len(readable) >= fewest_days and midnights and not _same(utc, local)
    return _Parsed(local if days else utc, zoned=True, local_days=days)


def _parse_numbers(cells: pd.Series) -> _Parsed:
    """Whole numbers are years (2024) or ISO dates without dashes (20240131); anything else is not a time."""
    numbers = cells.to_numpy(dtype=np.float64, na_value=np.nan)
    known = np.isfinite(numbers) & (numbers == np.round(numbers))
    years, dates = (
        known & (numbers >= 1000) & (numbers < 3000),
        known & (numbers >= 10_000_101) & (numbers < 30_000_000),
    )
    text = pd.Series(np.where(years | dates, np.where(known, numbers, 0), 0).astype(np.int64)).astype("str")
    return _parse_iso(text.where(pd.Series(years if years.sum() >= dates.sum() else dates)), 2)


def _parse_iso(text: pd.Series, fewest_days: int) -> _Parsed:
    # Words such as "now" would read as the current time.
    dated = text.where(text.str.match(r"\d{4}").fillna(False).astype(bool))
    times = _naive(pd.to_datetime(dated, format="ISO8601", utc=True, errors="coerce"))
    zoned = dated.str.contains(_ZONED, regex=True).fillna(False).to_numpy(dtype=bool)
    readable = np.asarray(times.notna())
    if not (zoned & readable).any():
        return _Parsed(times)
    if zoned[readable].all():
        local = pd.to_datetime(dated.str.replace(_ZONE, "", regex=True), format="ISO8601", errors="coerce")
        return _without_zone(times, _naive(local), fewest_days)
    return _Parsed(
        pd.DatetimeIndex(times.where(zoned)), zoned=True, reason=" without a time zone, while others have one"
    )


def _parse_formats(text: pd.Series) -> _Parsed:
    """Read all cells in the one format that fits most of them; day first and month first must not both fit."""
    sample = text.dropna().head(_SAMPLE)
    clock = Counter(map(_clock, sample)).most_common(1)[0][0]
    formats = [day + clock for day in _DAYS]
    fits = {form: int(pd.to_datetime(sample, format=form, errors="coerce").notna().sum()) for form in formats}
    best = max(fits.values())
    if not best:
        return _Parsed(_naive(pd.to_datetime(pd.Series(pd.NaT, index=text.index))))
    readings = [
        _naive(pd.to_datetime(text, format=form, errors="coerce")) for form, count in fits.items() if count == best
    ]
    counts = [_known(times) for times in readings]
    times = readings[int(np.argmax(counts))]
    rivals = (other for other, count in zip(readings, counts, strict=True) if count == max(counts))
    ambiguous = any(not _same(times, other) for other in rivals)
    return _Parsed(times, ambiguous=ambiguous)


def _clock(cell: str) -> str:
    return next((form for pattern, form in _CLOCKS if pattern.search(cell)), "")


def _same(one: pd.DatetimeIndex, other: pd.DatetimeIndex) -> bool:
    values: npt.NDArray[np.bool_] = one.asi8 == other.asi8
    return bool(values.all())
