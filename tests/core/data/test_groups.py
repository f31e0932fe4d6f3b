"""Which columns make a window together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pals_core.data.groups import grouped
from pals_core.data.split import Part
from pals_core.data.table import Table
from pals_core.errors import InvalidSpec
from pals_core.spec import DataSpec


def ragged() -> Table:
    """Series a over days 0 to 39, b over 10 to 29, and sun over all."""
    times = pd.date_range("2024-01-01", periods=40, freq="D").as_unit("us")
    values = np.arange(40.0)[:, None] + [0, 100, 1000]
    values[:10, 1] = values[30:, 1] = np.nan
    return Table(times, values, ("a", "b", "sun"), "D", (Part(0, 40), Part(10, 30), Part(0, 40)))


def spec(**fields: Any) -> DataSpec:
    return DataSpec.model_validate({"horizon": 2, **fields})


def test_pooled_series_have_their_own_rows_and_the_known_future_beside_them() -> None:
    first, second = grouped(ragged(), spec(series="pooled", targets=["a", "b"], known_future=["sun"]))
    assert (first.columns, second.columns) == (("a", "sun"), ("b", "sun"))
    assert (len(first.times), len(second.times)) == (40, 20)
    np.testing.assert_array_equal(second.values[:, 0], np.arange(110, 130))
    np.testing.assert_array_equal(second.values[:, 1], np.arange(1010, 1030))
    assert second.times[0] == pd.Timestamp("2024-01-11")


def test_targets_are_all_but_the_known_future_ones() -> None:
    (group,) = grouped(ragged().select(["a"], ["sun"]), spec(series="joint", known_future=["sun"]))
    assert group.columns == ("a", "sun")


def test_joint_series_share_their_range() -> None:
    with pytest.raises(InvalidSpec, match="choose series pooled") as refused:
        grouped(ragged(), spec(series="joint"))
    assert refused.value.problems[0].pointer == "/data/series"
    (group,) = grouped(ragged(), spec(series="joint", targets=["b"]))
    assert len(group.times) == 20


def test_a_known_future_column_reaches_over_every_series() -> None:
    with pytest.raises(InvalidSpec, match="'b' does not reach from the start to the end of series 'a'") as refused:
        grouped(ragged(), spec(series="pooled", targets=["a", "sun"], known_future=["b"]))
    assert refused.value.problems[0].pointer == "/data/known_future/0"


def test_each_series_is_resampled_over_its_own_range() -> None:
    first, second = grouped(ragged(), spec(series="pooled", targets=["a", "b"], resample="W"))
    assert list(first.times) == list(pd.date_range("2024-01-07", periods=5, freq="W-SUN"))
    # Days 10 to 29 begin and end on a Thursday and a Tuesday.
    assert list(second.times) == list(pd.date_range("2024-01-21", periods=2, freq="W-SUN"))
    np.testing.assert_array_equal(second.values[:, 0], [117, 124])


def test_unknown_columns_are_pointed_at() -> None:
    with pytest.raises(InvalidSpec) as refused:
        grouped(ragged(), spec(targets=["a", "c"], known_future=["sun", "moon"]))
    assert [problem.pointer for problem in refused.value.problems] == ["/data/targets/1", "/data/known_future/1"]
