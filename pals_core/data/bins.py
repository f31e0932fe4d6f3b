"""Into which step of a slower clock a time step falls: plain arithmetic on times, free of pandas.

Steps are counted from a fixed origin, not from the start of the data, so that a forecast's recent values are resampled
as those of the training were. The arithmetic takes one number or an array of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pals_core.errors import InvalidSpec, Problem

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
DAY = 86_400_000_000
_MICROSECONDS = {"ms": 1_000, "s": 1_000_000, "min": 60_000_000, "h": 3_600_000_000, "D": DAY, "W": 7 * DAY}
_MONTHS_IN = {"M": 1, "Q": 3, "Y": 12}
_ANCHORS = {"W": _WEEKDAYS, "Q": _MONTHS, "Y": _MONTHS}
_DEFAULT_ANCHORS = {"W": "SUN", "QS": "JAN", "QE": "DEC", "YS": "JAN", "YE": "DEC"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MONDAY = 4 * DAY  # 5 January 1970
_SHORTEST_MONTH = 28 * DAY

_SOURCE = re.compile(r"(?P<multiple>[1-9]\d*)?(?P<unit>ms|s|min|h|D|B|W|B?[MQY][SE])(?:-(?P<anchor>[A-Z]{3}))?")
_TARGET = re.compile(r"(?P<multiple>[1-9]\d{0,3})?(?P<unit>s|min|h|D|W|[MQY][SE])(?:-(?P<anchor>[A-Z]{3}))?")


@dataclass(frozen=True)
class Bins:
    """The steps of a frequency, numbered: of a fixed length in microseconds, or of whole months.

    A place is a number of microseconds since 1970, or of months since the year 0, as `in_months` says.
    """

    frequency: str  # in full: `W-SUN` for `W`
    length: int
    origin: int  # the place where step 0 begins
    in_months: bool
    named_by_last_day: bool

    def number(self, place: Any) -> Any:
        """Return the number of the step around a place, or those around an array of places."""
        return (place - self.origin) // self.length

    def start(self, number: Any) -> Any:
        """Return the place where a step begins, or those where an array of them do."""
        return number * self.length + self.origin

    def complete(self, start: datetime, end: datetime, source: str) -> range:
        """Return the numbers of the steps of which every step of `source` lies from `start` to `end`, both included."""
        first, last = self.number(self._place(start)), self.number(self._place(end))
        before, after = _neighbour(start, source, -1), _neighbour(end, source, 1)
        if before is not None and self.number(self._place(before)) == first:
            first += 1
        if after is not None and self.number(self._place(after)) == last:
            last -= 1
        return range(first, max(first, last + 1))

    def _place(self, time: datetime) -> int:
        if self.in_months:
            return 12 * time.year + time.month - 1
        return (time.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def bins_of(frequency: str, source: str) -> Bins:
    """Return the steps of `frequency` for data whose own frequency is `source`, both pandas offset aliases.

    Raises InvalidSpec for a frequency that is not known, not slower than `source`, or whose steps would hold unequal
    numbers of the data's where the calendar does not ask for it.
    """
    match = _TARGET.fullmatch(frequency)
    unit, anchor = (match["unit"], match["anchor"]) if match else ("", None)
    if match is None or (anchor is not None and anchor not in _ANCHORS.get(unit[:1], ())):
        raise _refused(
            f"the frequency {frequency!r} cannot be resampled to; possible are s, min, h, D, W, MS, ME, QS, QE, YS and "
            "YE, with a number before and an anchor behind them, such as 6h, W-SUN or QS-FEB"
        )
    multiple = int(match["multiple"] or 1)
    anchor = anchor or _DEFAULT_ANCHORS.get(unit)
    name = f"{multiple if multiple > 1 else ''}{unit}{f'-{anchor}' if anchor else ''}"
    origin = _origin(unit, anchor)
    if unit in _MICROSECONDS:
        bins = Bins(name, multiple * _MICROSECONDS[unit], origin, in_months=False, named_by_last_day=unit == "W")
    else:
        bins = Bins(name, multiple * _MONTHS_IN[unit[0]], origin, in_months=True, named_by_last_day=unit[1] == "E")
    _require_slower(bins, source)
    return bins


def _origin(unit: str, anchor: str | None) -> int:
    """Return a place where a step begins: weeks, quarters and years that end with their anchor begin after it."""
    if anchor is None:
        return 0
    if unit == "W":
        return _FIRST_MONDAY + (_WEEKDAYS.index(anchor) + 1) % 7 * DAY
    return (_MONTHS.index(anchor) + (unit[-1] == "E")) % 12


def _require_slower(bins: Bins, source: str) -> None:
    months, length = _step(source)
    if months and not bins.in_months:
        fits = False
    elif months:
        fits = bins.length > months and bins.length % months == 0 and _begin_together(bins, source)
    elif bins.in_months:
        fits = length <= _SHORTEST_MONTH * bins.length
    elif source == "B":
        fits = bins.length % (7 * DAY) == 0
    else:
        fits = bins.length > length and bins.length % length == 0 and _begin_together(bins, source)
    if not fits:
        raise _refused(
            f"the data's frequency is {source}, of which {bins.frequency} is no slower one made of whole steps; "
            "choose a slower frequency, or leave resample out"
        )


def _begin_together(bins: Bins, source: str) -> bool:
    """Return whether a step begins where one of the data does, as far as their anchors tell: QS-FEB has none for YS."""
    match = _SOURCE.fullmatch(source)
    if match is None or match["anchor"] is None:
        return True
    unit = match["unit"].removeprefix("B")
    one = _MICROSECONDS[unit] if unit in _MICROSECONDS else _MONTHS_IN[unit[0]]
    return (_origin(unit, match["anchor"]) - bins.origin) % one == 0


def _step(source: str) -> tuple[int, int]:
    """Return the months, or else the microseconds, of one step; a business day counts as a day."""
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise _refused(f"data of frequency {source!r} cannot be resampled")
    multiple, unit = int(match["multiple"] or 1), match["unit"]
    if unit == "B":
        return 0, multiple * DAY
    if unit in _MICROSECONDS:
        return 0, multiple * _MICROSECONDS[unit]
    return multiple * _MONTHS_IN[unit.removeprefix("B")[0]], 0


def _neighbour(time: datetime, source: str, direction: int) -> datetime | None:
    """Return the step of `source` before or after `time`, in months only its month; None beyond the calendar."""
    months, length = _step(source)
    try:
        if months:
            year, month = divmod(12 * time.year + time.month - 1 + direction * months, 12)
            return datetime(year, month + 1, 1, tzinfo=UTC)
        neighbour = time + direction * timedelta(microseconds=length)
        while source == "B" and neighbour.weekday() >= 5:
            neighbour += direction * timedelta(days=1)
    except (OverflowError, ValueError):
        return None
    return neighbour


def _refused(message: str) -> InvalidSpec:
    return InvalidSpec(message, (Problem(message, pointer="/data/resample/frequency"),))
