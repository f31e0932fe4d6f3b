"""Steps of a slower clock lie where pandas would put them, and only whole ones count."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_core.data.bins import bins_of
from pals_core.data.grid import grid
from pals_core.data.resampling import resample
from pals_core.data.table import Table
from pals_core.errors import InvalidSpec
from pals_core.spec import Aggregation, Resample

# (the data's frequency, the slower one, and that one as pandas' resample understands it)
PAIRS = [
    ("h", "D", "D"),
    ("h", "6h", "6h"),
    ("15min", "h", "h"),
    ("100ms", "s", "s"),
    ("D", "W", "W-SUN"),
    ("D", "W-WED", "W-WED"),
    ("D", "MS", "MS"),
    ("D", "ME", "ME"),
    ("B", "W-FRI", "W-FRI"),
    ("B", "ME", "ME"),
    ("W-TUE", "MS", "MS"),
    ("W-TUE", "QS-FEB", "QS-FEB"),
    ("MS", "QS", "QS-JAN"),
    ("MS", "YE-JUN", "YE-JUN"),
    ("ME", "QE", "QE-DEC"),
    ("BME", "YS", "YS-JAN"),
    ("QS-JAN", "YE", "YE-DEC"),
    ("QE-DEC", "YE", "YE-DEC"),
    ("QS-FEB", "YS-NOV", "YS-NOV"),
]


def table_of(frequency: str, steps: int, start: str = "2021-03-03 00:00") -> Table:
    times = pd.date_range(start, periods=steps, freq=frequency).as_unit("us")
    values = np.random.default_rng(1).normal(size=(steps, 2))
    return Table(times, values, ("a", "b"), frequency)


@pytest.mark.parametrize(("frequency", "slower", "of_pandas"), PAIRS)
@pytest.mark.parametrize("aggregation", ["mean", "sum", "last", "min", "max"])
def test_whole_steps_are_those_of_pandas(frequency: str, slower: str, of_pandas: str, aggregation: str) -> None:
    table = table_of(frequency, 400)
    resampled = resample(table, Resample.model_validate({"frequency": slower, "aggregation": aggregation}))

    frame = pd.DataFrame(table.values, index=table.times)
    expected = getattr(frame.resample(of_pandas), aggregation)()
    ends = pd.date_range(table.times[0], periods=402, freq=frequency)
    before = pd.date_range(end=table.times[0], periods=2, freq=frequency)[0]
    counts = frame[0].resample(of_pandas).count()
    around = pd.Series(0, index=[before, *table.times, ends[400]]).resample(of_pandas).count()
    whole = expected[(counts == around.reindex(counts.index)).to_numpy()]
    assert resampled.frequency == of_pandas
    assert list(resampled.times) == list(whole.index)
    np.testing.assert_allclose(resampled.values, whole.to_numpy(), rtol=1e-12)
    assert resampled.times.equals(grid(resampled.times, of_pandas))
    bins = bins_of(slower, frequency)
    assert len(bins.complete(table.times[0].to_pydatetime(), table.times[-1].to_pydatetime(), frequency)) == len(whole)


@given(st.integers(0, 400), st.integers(200, 300), st.sampled_from(["7h", "12h", "2D", "3W", "2MS", "QS-FEB"]))
def test_where_steps_lie_does_not_depend_on_where_the_data_begin(skipped: int, steps: int, slower: str) -> None:
    source = "h" if slower.endswith("h") else "D"
    table = table_of(source, 800)
    whole = resample(table, Resample(frequency=slower))
    part = Table(table.times[skipped:][:steps], table.values[skipped:][:steps], table.columns, source)
    resampled = resample(part, Resample(frequency=slower))
    places = whole.times.get_indexer(resampled.times)
    assert (places >= 0).all()
    np.testing.assert_allclose(resampled.values, whole.values[places], rtol=1e-12)
    assert (np.diff(places) == 1).all()


def test_a_step_with_a_missing_value_has_none_and_the_others_do() -> None:
    table = table_of("D", 21, "2021-03-01")
    table.values[8, 0] = np.nan
    for aggregation in ("mean", "sum", "min", "max"):
        values = resample(table, Resample.model_validate({"frequency": "W", "aggregation": aggregation})).values
        np.testing.assert_array_equal(np.isnan(values), [[False, False], [True, False], [False, False]])
    last = resample(table, Resample.model_validate({"frequency": "W", "aggregation": "last"})).values
    np.testing.assert_array_equal(last, table.values[[6, 13, 20]])


def test_no_value_of_a_later_step_counts() -> None:
    table = table_of("h", 100)
    before = resample(table, Resample(frequency="D"))
    table.values[48:] += 1e6
    np.testing.assert_array_equal(resample(table, Resample(frequency="D")).values[:2], before.values[:2])


def test_a_begun_step_is_left_out() -> None:
    bins = bins_of("D", "h")
    first, last = datetime(2024, 1, 1, 0), datetime(2024, 1, 3, 22)
    assert len(bins.complete(first, last, "h")) == 2
    assert len(bins.complete(first.replace(hour=1), last, "h")) == 1
    assert len(bins.complete(first, last.replace(hour=23), "h")) == 3
    assert len(bins.complete(first.replace(hour=1), first.replace(hour=5), "h")) == 0
    with pytest.raises(InvalidSpec, match="no whole step of D"):
        resample(table_of("h", 10, "2024-01-01 01:00"), Resample(frequency="D"))


def test_the_ends_of_the_calendar_are_whole() -> None:
    assert len(bins_of("YS", "D").complete(datetime(1, 1, 1), datetime(2, 12, 31), "D")) == 2
    assert len(bins_of("YS", "MS").complete(datetime(9999, 1, 1), datetime(9999, 12, 1), "MS")) == 1


@pytest.mark.parametrize(
    ("slower", "source", "message"),
    [
        ("h", "D", "no slower one"),
        ("D", "D", "no slower one"),
        ("90min", "h", "made of whole steps"),
        ("2D", "B", "made of whole steps"),
        ("W", "MS", "no slower one"),
        ("MS", "QS-JAN", "no slower one"),
        ("QS", "2MS", "made of whole steps"),
        ("MS", "5W-SUN", "no slower one"),
        ("M", "D", "cannot be resampled to"),
        ("W-JAN", "D", "cannot be resampled to"),
        ("QS-SUN", "D", "cannot be resampled to"),
        ("D-SUN", "h", "cannot be resampled to"),
        ("0D", "h", "cannot be resampled to"),
        ("B", "h", "cannot be resampled to"),
        ("YS", "QS-FEB", "no slower one made of whole steps"),
        ("YE", "QE-JAN", "no slower one made of whole steps"),
        ("2YS-APR", "YS-JAN", "no slower one made of whole steps"),
        ("2W", "W-SAT", "no slower one made of whole steps"),
        ("D", "fortnight", "of frequency 'fortnight'"),
    ],
)
def test_what_is_not_slower_is_refused(slower: str, source: str, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message) as refused:
        bins_of(slower, source)
    assert refused.value.problems[0].pointer == "/data/resample/frequency"


def test_the_mean_of_equal_values_is_that_value() -> None:
    prices = np.random.default_rng(0).uniform(0.01, 9, size=50).round(2)
    times = pd.date_range("2020-01-01", periods=1461).as_unit("us")
    table = Table(times, np.tile(prices, (1461, 1)), tuple(f"p{place}" for place in range(50)), "D")
    means = resample(table, Resample(frequency="MS", aggregation=Aggregation.MEAN))
    np.testing.assert_array_equal(means.values, np.tile(prices, (48, 1)))
