"""Series of a long table come to one grid whatever their times are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_core.data import common_times
from pals_core.data.clock import Clock
from pals_core.data.common_times import share_times
from pals_core.data.grid import infer_frequency
from pals_core.data.profile import Severity
from pals_core.data.table import Table
from pals_core.errors import InvalidTable

QUARTERS = st.lists(st.integers(0, 60), min_size=1, max_size=12, unique=True).map(sorted)


def times_of(quarters: list[int]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(
        [pd.Timestamp("2024-01-01") + pd.Timedelta(minutes=15 * quarter) for quarter in quarters]
    ).as_unit("us")


@given(st.lists(QUARTERS, min_size=1, max_size=5))
def test_every_series_on_the_grid_keeps_its_times_and_values(series: list[list[int]]) -> None:
    clocks = {
        f"s{place}": Clock(times_of(quarters), np.arange(len(quarters)), f"s{place}")
        for place, quarters in enumerate(series)
    }
    common = share_times(clocks)
    assert common.times.is_monotonic_increasing
    assert common.times.is_unique
    for name, clock in clocks.items():
        span = common.spans[name]
        named = [found for found in common.findings if found.column == name and found.severity is Severity.ERROR]
        if span.rows:
            assert common.times[span.start] == clock.times[0]
            assert common.times[span.stop - 1] == clock.times[-1]
            assert clock.times.isin(common.times).all()
        else:
            assert common.frequency is None or named

    frame = pd.concat(
        pd.DataFrame({"unique_id": name, "ds": clock.times, "y": np.arange(len(clock.times)) + 0.5})
        for name, clock in clocks.items()
    )
    try:
        table = Table.from_frame(frame)
    except InvalidTable:
        return
    assert infer_frequency(table.times) is not None
    for name, clock in clocks.items():
        span = table.span_of(name)
        own = pd.Series(
            table.values[span.start : span.stop, table.columns.index(name)], table.times[span.start : span.stop]
        )
        assert list(own.dropna().index) == list(clock.times)
        assert own.dropna().tolist() == (np.arange(len(clock.times)) + 0.5).tolist()


def test_the_usual_series_may_itself_be_off_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common_times, "_SMALL_GRID", 10)
    clocks = {
        name: Clock(times_of(quarters), np.arange(len(quarters)), name)
        for name, quarters in {"a": [1, 5], "b": [0, 4, 8, 12, 16], "c": [4000, 4004]}.items()
    }
    common = share_times(clocks)
    assert common.frequency == "h"
    assert [common.spans[name].rows for name in "abc"] == [0, 5, 0]
    assert [finding.column for finding in common.findings] == ["a", "c"]


@pytest.mark.parametrize("order", [("slow", "fast"), ("fast", "slow")])
def test_of_two_series_the_order_decides_nothing(order: tuple[str, str]) -> None:
    every_day = pd.date_range("2024-01-01", periods=40)
    times = {"slow": every_day[::2], "fast": every_day}
    frame = pd.concat([pd.DataFrame({"unique_id": name, "ds": times[name], "y": 1.0}) for name in order])
    table = Table.from_frame(frame)
    assert (table.frequency, table.columns) == ("D", order)
