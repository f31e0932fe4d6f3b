"""Frequencies are recognised from times with gaps, and carried on into the future."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_core.data.frequency import FEATURES, Family, calendar_family, is_weekly_or_slower
from pals_core.data.grid import (
    OFF_GRID,
    Irregular,
    future_times,
    grid,
    infer_frequency,
    is_consecutive,
    step_numbers,
    steps_from,
)
from pals_core.errors import InvalidTable

FREQUENCIES = [
    *("100ms", "s", "10s", "min", "15min", "h", "2h", "6h", "D", "2D", "10D", "B"),
    *("W-SUN", "W-TUE", "W-SAT", "2W-SUN", "MS", "ME", "2MS", "BMS", "BME"),
    *("QS-JAN", "QS-FEB", "QE-DEC", "QE-OCT", "2QS-JAN", "YS-JAN", "YS-JUL", "YE-DEC", "YE-JUN", "5YS-JAN"),
]


@pytest.mark.parametrize("frequency", FREQUENCIES)
@pytest.mark.parametrize("gaps", [False, True])
def test_every_frequency_is_recognised_with_and_without_gaps(frequency: str, gaps: bool) -> None:
    complete = pd.date_range("2021-03-01 00:00", periods=40, freq=frequency)
    times = complete.delete([7, 20, 21]) if gaps else complete
    assert infer_frequency(times) == frequency
    assert grid(times, frequency).equals(complete.as_unit("us"))
    expected = np.delete(np.arange(40), [7, 20, 21]) if gaps else np.arange(40)
    np.testing.assert_array_equal(step_numbers(times, frequency), expected)


@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_the_future_continues_the_grid(frequency: str) -> None:
    times = pd.date_range("2021-03-01 06:30", periods=30, freq=frequency)
    assert future_times(times[19], 10, frequency).equals(times[20:].as_unit("us"))


@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_every_recognised_frequency_has_a_calendar_family(frequency: str) -> None:
    assert calendar_family(frequency) in FEATURES


def test_a_time_of_day_is_kept() -> None:
    assert infer_frequency(pd.date_range("2021-01-01 08:15", periods=9, freq="D")) == "D"
    assert infer_frequency(pd.date_range("2021-01-01 08:15", periods=9, freq="MS")) == "MS"


def test_days_within_one_week_are_days_not_business_days() -> None:
    assert infer_frequency(pd.date_range("2024-01-01", periods=5, freq="D")) == "D"


def test_holidays_are_gaps_in_business_days() -> None:
    times = pd.date_range("2024-01-01", periods=30, freq="B").delete([4, 12])
    assert infer_frequency(times) == "B"


@pytest.mark.parametrize(
    ("times", "position"),
    [
        (["2024-01-01"], 0),
        (["2024-01-01 00:00", "2024-01-01 01:00", "2024-01-01 02:00", "2024-01-01 02:40"], 3),
        (["2024-01-15", "2024-02-15", "2024-03-15", "2024-04-15", "2024-05-15"], 2),
        (["2024-01-01 00:00:00.0000001", "2024-01-01 00:00:00.000001", "2024-01-01 00:00:00.000002"], 1),
    ],
)
def test_irregular_times_say_where(times: list[str], position: int) -> None:
    found = infer_frequency(pd.DatetimeIndex(times))
    assert isinstance(found, Irregular)
    assert found.position == position
    assert found.reason


@given(st.integers(1, 90), st.sampled_from(["s", "min", "h", "D"]), st.integers(8, 60), st.data())
def test_a_fixed_step_survives_gaps_while_it_stays_the_commonest(
    multiple: int, unit: str, count: int, data: st.DataObject
) -> None:
    complete = pd.date_range("2001-02-03 04:05:06", periods=count, freq=f"{multiple}{unit}")
    # Gaps of single steps, far apart, leave the step commonest.
    gaps = data.draw(st.sets(st.integers(1, count // 4).map(lambda place: 4 * place - 2), max_size=count // 8))
    times = complete.delete([gap for gap in gaps if gap < count - 1])
    frequency = infer_frequency(times)
    assert isinstance(frequency, str)
    assert grid(times, frequency).equals(complete.as_unit("us"))


@pytest.mark.parametrize(
    ("frequency", "family", "slow"),
    [
        ("YS-JAN", Family.YEARLY, True),
        ("QE-DEC", Family.QUARTERLY, True),
        ("BME", Family.MONTHLY, True),
        ("2W-SUN", Family.WEEKLY, True),
        ("B", Family.DAILY, False),
        ("2h", Family.HOURLY, False),
        ("15min", Family.MINUTELY, False),
        ("100ms", Family.SECONDLY, False),
    ],
)
def test_multiples_belong_to_their_unit(frequency: str, family: Family, slow: bool) -> None:
    assert calendar_family(frequency) is family
    assert is_weekly_or_slower(frequency) is slow


@pytest.mark.parametrize("frequency", ["", "fortnight", "0h", "-1D", "M", "W-XXXX", "15"])
def test_unknown_frequencies_are_refused(frequency: str) -> None:
    with pytest.raises(InvalidTable, match="not known"):
        calendar_family(frequency)


@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_steps_are_counted_from_any_anchor(frequency: str) -> None:
    times = pd.date_range("2021-03-01 06:30", periods=30, freq=frequency).as_unit("us")
    off = (times[:3] + pd.Timedelta("1min 7us")).as_unit("us")
    before, after, odd, none = steps_from(times[10], [times[:9], times[12:25:3], off, times[:0]], frequency)
    np.testing.assert_array_equal(before, np.arange(-10, -1))
    np.testing.assert_array_equal(after, [2, 5, 8, 11, 14])
    assert (odd == OFF_GRID).all()
    assert len(none) == 0


@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_consecutive_steps_are_told_from_others(frequency: str) -> None:
    times = pd.date_range("2021-03-01 06:30", periods=12, freq=frequency)
    assert is_consecutive(times, frequency)
    assert is_consecutive(times[:1], frequency)
    assert not is_consecutive(times.delete(5), frequency)
    assert not is_consecutive(times, "7h")


def test_weeks_of_another_day_are_other_steps() -> None:
    mondays = pd.date_range("2024-01-01", periods=5, freq="7D")
    assert is_consecutive(mondays, "W-MON")
    assert not is_consecutive(mondays, "W-SUN")
    assert not is_consecutive(mondays, "ms")
