"""The regular time grid behind the times of a table: its frequency, its steps, and the steps after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

# Beyond this many steps per known time a grid would be almost empty, and could exhaust the memory.
MAX_STEPS_PER_TIME = 20

# Stands for the number of a step that is none.
OFF_GRID = np.iinfo(np.int64).min

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_MICROSECONDS = {"D": 86_400_000_000, "h": 3_600_000_000, "min": 60_000_000, "s": 1_000_000, "ms": 1_000}
_SHORTEST_MONTH = 28 * _MICROSECONDS["D"]


@dataclass(frozen=True)
class Irregular:
    """Why times have no frequency: the position of the first time that does not fit, and a sentence."""

    position: int
    reason: str


def infer_frequency(times: pd.DatetimeIndex) -> str | Irregular:
    """Return the frequency of sorted, distinct times as a pandas offset alias; gaps are allowed.

    The step is the commonest interval; every time must lie a whole number of steps after the first one. Months are
    anchored at their first or last day or business day. Days without any weekend are business days.
    """
    if len(times) < 2:
        return Irregular(0, "one time alone has no frequency")
    microseconds = _as_microseconds(times)
    intervals = np.diff(microseconds)
    monthly = _monthly(times) if intervals.min() >= _SHORTEST_MONTH else None
    frequency = monthly or _fixed(times, intervals)
    if isinstance(frequency, Irregular):
        return frequency
    steps = int(step_numbers(times, frequency)[-1]) + 1
    if steps > MAX_STEPS_PER_TIME * len(times):
        widest = int(np.argmax(intervals)) + 1
        return Irregular(
            widest, f"at the commonest interval, {frequency}, only {len(times)} of {steps} steps are there"
        )
    return frequency


def grid(times: pd.DatetimeIndex, frequency: str) -> pd.DatetimeIndex:
    """Return every step of `frequency` from the first to the last of `times`."""
    return pd.date_range(times[0], times[-1], freq=frequency).as_unit("us")


def step_numbers(times: pd.DatetimeIndex, frequency: str) -> npt.NDArray[np.int64]:
    """Return for each of `times` how many steps of `frequency` it lies after the first."""
    step = _fixed_step(frequency)
    if step is None:
        return np.asarray(grid(times, frequency).get_indexer(times), dtype=np.int64)
    microseconds = _as_microseconds(times)
    return np.asarray((microseconds - microseconds[0]) // step)


def steps_from(anchor: pd.Timestamp, series: Sequence[pd.DatetimeIndex], frequency: str) -> list[npt.NDArray[np.int64]]:
    """Return for each of several sorted times how many steps after `anchor` they lie, OFF_GRID where on none."""
    step = _fixed_step(frequency)
    if step is not None:
        return [_fixed_steps_from(anchor, times, step) for times in series]
    first = min(times[0] for times in series if len(times))
    last = max(times[-1] for times in series if len(times))
    before = pd.date_range(min(first, anchor), anchor, freq=frequency)
    # Counted back from the anchor, every second month is another one than counted from the first time.
    back = pd.date_range(end=anchor, periods=len(before), freq=frequency)
    ahead = pd.date_range(anchor, max(last, anchor), freq=frequency)[1:]
    whole = pd.DatetimeIndex(back.append(ahead)).as_unit("us")
    found = [np.asarray(whole.get_indexer(times), dtype=np.int64) for times in series]
    return [np.where(places < 0, OFF_GRID, places - (len(back) - 1)) for places in found]


def is_consecutive(times: pd.DatetimeIndex, frequency: str) -> bool:
    """True when `times` are steps of `frequency` without a gap, the first one included."""
    try:
        if pd.date_range(times[0], periods=1, freq=frequency)[0] != times[0]:
            return False
        step = _fixed_step(frequency)
        if step is not None:
            return bool((np.diff(_as_microseconds(times)) == step).all())
        expected = grid(times, frequency)
    except (ValueError, OverflowError):  # beyond what the calendar can hold
        return False
    return len(expected) == len(times) and bool((expected == times.as_unit("us")).all())


def is_on_grid(times: pd.DatetimeIndex, frequency: str) -> bool:
    """True when sorted `times` all lie whole steps of `frequency` after the first."""
    step = _fixed_step(frequency)
    if step is None:
        return bool((step_numbers(times, frequency) >= 0).all())
    microseconds = _as_microseconds(times)
    return not ((microseconds - microseconds[:1]) % step).any()


def are_steps(times: pd.DatetimeIndex, frequency: str) -> bool:
    """True when sorted `times`, one or more, all are steps of `frequency`, with no more missing than a table may."""
    try:
        starts = len(times) > 0 and pd.date_range(times[0], periods=1, freq=frequency)[0] == times[0]
        if not starts or not is_on_grid(times, frequency):
            return False
        return int(step_numbers(times, frequency)[-1]) < MAX_STEPS_PER_TIME * len(times)
    except (ValueError, OverflowError):  # beyond what the calendar can hold
        return False


def future_times(last: pd.Timestamp, steps: int, frequency: str) -> pd.DatetimeIndex:
    """Return the `steps` time steps that follow `last`, itself a step of `frequency`."""
    return pd.date_range(last, periods=steps + 1, freq=frequency)[1:].as_unit("us")


def _fixed_steps_from(anchor: pd.Timestamp, times: pd.DatetimeIndex, step: int) -> npt.NDArray[np.int64]:
    after = _as_microseconds(times) - _as_microseconds(pd.DatetimeIndex([anchor]))
    return np.where(after % step, OFF_GRID, after // step)


def _as_microseconds(times: pd.DatetimeIndex) -> npt.NDArray[np.int64]:
    microseconds: npt.NDArray[np.int64] = times.as_unit("us").asi8
    return microseconds


def _fixed_step(frequency: str) -> int | None:
    """Microseconds of a step of constant length; None for business days and months."""
    unit = frequency.lstrip("0123456789")
    multiple = int(frequency[: len(frequency) - len(unit)] or 1)
    if unit.startswith("W-"):
        return multiple * 7 * _MICROSECONDS["D"]
    return multiple * _MICROSECONDS[unit] if unit in _MICROSECONDS else None


def _fixed(times: pd.DatetimeIndex, intervals: npt.NDArray[np.int64]) -> str | Irregular:
    lengths, counts = np.unique(intervals, return_counts=True)
    step = int(lengths[np.argmax(counts)])
    odd = np.flatnonzero(intervals % step)
    if len(odd):
        position = int(odd[0]) + 1
        interval, usual = (pd.Timedelta(microseconds=int(length)) for length in (intervals[odd[0]], step))
        return Irregular(position, f"{times[position]} follows after {interval}, where the usual interval is {usual}")
    day = _MICROSECONDS["D"]
    if step == day and not (times.day_of_week >= 5).any() and (intervals > day).any():
        return "B"
    if step % (7 * day) == 0:
        return _alias(step // (7 * day), f"W-{_WEEKDAYS[times[0].day_of_week]}")
    for unit, length in _MICROSECONDS.items():
        if step % length == 0:
            return _alias(step // length, unit)
    return Irregular(1, f"the usual interval, {pd.Timedelta(microseconds=step)}, is not a whole number of milliseconds")


def _monthly(times: pd.DatetimeIndex) -> str | None:
    """Months, quarters or years, all at the same edge of a month and at the same time of day."""
    if times[0] - times[0].normalize() != times[-1] - times[-1].normalize():
        return None
    for edge in ("S", "E"):
        for business in ("", "B"):
            every_month = pd.date_range(times[0], times[-1], freq=f"{business}M{edge}").as_unit("us")
            positions = every_month.get_indexer(times.as_unit("us"))
            if (positions >= 0).all():
                return _months_alias(np.diff(positions), times[0].month, business, edge)
    return None


def _months_alias(intervals: npt.NDArray[np.intp], first_month: int, business: str, edge: str) -> str:
    months = int(np.gcd.reduce(intervals))
    if months % 12 == 0:
        return _alias(months // 12, f"{business}Y{edge}-{_MONTHS[first_month - 1]}")
    if months % 3 == 0:
        anchor = (first_month - 1) % 3 + (9 if edge == "E" else 0)
        return _alias(months // 3, f"{business}Q{edge}-{_MONTHS[anchor]}")
    return _alias(months, f"{business}M{edge}")


def _alias(multiple: int, unit: str) -> str:
    return unit if multiple == 1 else f"{multiple}{unit}"
