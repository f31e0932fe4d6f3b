"""Windows hold the right rows, and training ones nothing of what comes later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from pals_core.data.calendar import calendar_features
from pals_core.data.lengths import WindowLengths
from pals_core.data.table import Table
from pals_core.data.windows import inference_batch, make_windows
from pals_core.errors import InvalidForecastInput, InvalidSpec, InvalidTable
from pals_core.spec import DataSpec

MakeTable = Callable[..., Table]


def data_spec(**fields: object) -> DataSpec:
    return DataSpec.model_validate({"input_len": 12, "label_len": 5, "horizon": 4, **fields})


def counting_table(steps: int, columns: int = 2) -> Table:
    """Each cell tells its row: row, row + 1000 …"""
    values = np.arange(steps, dtype=np.float64)[:, None] + 1000 * np.arange(columns)
    times = pd.date_range("2021-01-01", periods=steps, freq="h")
    return Table(times, values, tuple(f"c{column}" for column in range(columns)), "h")


@given(
    st.integers(60, 140),
    st.integers(2, 12),
    st.integers(1, 6),
    st.integers(0, 12),
    st.sampled_from([None, (40, 10, 9)]),
)
def test_each_window_holds_its_rows(
    steps: int, input_len: int, horizon: int, label_len: int, counts: tuple[int, int, int] | None
) -> None:
    label_len = min(label_len, input_len)
    split = {} if counts is None else dict(zip(("train", "validation", "test"), counts, strict=True))
    data = data_spec(input_len=input_len, label_len=label_len, horizon=horizon, split=split)
    table = counting_table(steps)
    windows = make_windows(table, data, dtype=torch.float64)
    marks = torch.tensor(calendar_features(table.times, "h"))
    train_rows = 40 if counts else int(steps * 0.7)
    validation_rows = 10 if counts else steps - train_rows - int(steps * 0.2)
    starts = {"train": 0, "validation": train_rows - input_len, "test": train_rows + validation_rows - input_len}
    for name, start in starts.items():
        part = getattr(windows, name)
        indices = torch.tensor([len(part) - 1, 0])
        batch = part.batch(indices)
        for place, index in enumerate(indices.tolist()):
            first = start + index

            def rows(scaled: torch.Tensor) -> np.ndarray:
                return windows.scaler.unscale(scaled.numpy())[:, 0].round(6)

            split_at = first + input_len
            np.testing.assert_array_equal(rows(batch.x_enc[place]), np.arange(first, split_at))
            np.testing.assert_array_equal(rows(batch.target[place]), np.arange(split_at, split_at + horizon))
            np.testing.assert_array_equal(
                rows(batch.x_dec[place, :label_len]), np.arange(split_at - label_len, split_at)
            )
            assert not batch.x_dec[place, label_len:].any()
            assert_close(batch.x_mark_enc[place], marks[first:split_at])
            assert_close(batch.x_mark_dec[place], marks[split_at - label_len : split_at + horizon])


@given(st.integers(0, 2**32 - 1), st.sampled_from(["interpolate", "ffill"]), st.sampled_from(["validation", "test"]))
def test_the_future_never_changes_the_past(seed: int, policy: str, changed: str) -> None:
    rng = np.random.default_rng(seed)
    table = counting_table(120)
    table = replace(table, values=rng.normal(size=table.values.shape))
    table.values[rng.random(table.values.shape) < 0.2] = np.nan
    table.values[[0, 84, 96]] = 1.0
    start = {"validation": 84, "test": 96}[changed]
    future = table.values.copy()
    future[start + 1 :] = rng.normal(size=future[start + 1 :].shape) * 100

    before = make_windows(table, data_spec(missing=policy))
    after = make_windows(replace(table, values=future), data_spec(missing=policy))
    np.testing.assert_array_equal(before.scaler.mean, after.scaler.mean)
    np.testing.assert_array_equal(before.scaler.std, after.scaler.std)
    untouched = ["train"] if changed == "validation" else ["train", "validation"]
    for name in untouched:
        one, other = getattr(before, name), getattr(after, name)
        everything = torch.arange(len(one))
        for left, right in zip(astuple(one.batch(everything)), astuple(other.batch(everything)), strict=True):
            assert left is right is None or torch.equal(left, right)


def test_training_rows_are_scaled_to_mean_zero_and_deviation_one(make_table: MakeTable) -> None:
    windows = make_windows(make_table(steps=300), data_spec(), dtype=torch.float64)
    train = windows.train.values[:210]
    assert_close(train.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert_close(train.std(0, correction=0), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("columns", [1, 300])
def test_any_number_of_columns(make_table: MakeTable, columns: int) -> None:
    batch = make_windows(make_table(columns=columns), data_spec()).test.batch(torch.arange(3))
    assert batch.x_enc.shape == (3, 12, columns)
    assert batch.target.shape == (3, 4, columns)


def test_yearly_data_has_no_calendar_features(make_table: MakeTable) -> None:
    windows = make_windows(make_table(steps=120, frequency="YS-JAN"), data_spec())
    assert windows.train.batch(torch.tensor([0])).x_mark_enc.shape == (1, 12, 0)


def test_targets_choose_and_order_the_columns(make_table: MakeTable) -> None:
    table = make_table()
    windows = make_windows(table, data_spec(targets=("c2", "c0")))
    assert windows.columns == ("c2", "c0")
    np.testing.assert_allclose(windows.scaler.mean, table.values[:140].mean(axis=0)[[2, 0]])


def test_moving_keeps_the_parts_on_one_tensor(make_table: MakeTable) -> None:
    moved = make_windows(make_table(), data_spec()).to("meta")
    assert moved.train.values is moved.validation.values is moved.test.values
    assert moved.test.batch(torch.tensor([0])).x_enc.device.type == "meta"
    assert len(moved.test) == 37


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"horizon": 21}, "/data/horizon"),
        ({"input_len": 140}, "/data/horizon"),
        ({"input_len": None}, "/data/input_len"),
        ({"label_len": None}, "/data/label_len"),
        ({"targets": ("c0", "x")}, "/data/targets/1"),
        ({"split": {"train": 190, "validation": 10, "test": 10}}, "/data/split"),
    ],
)
def test_what_cannot_be_cut_is_refused(make_table: MakeTable, fields: dict[str, object], pointer: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        make_windows(make_table(steps=200), data_spec(**fields))
    assert refused.value.problems[0].pointer == pointer


@pytest.mark.parametrize(("value", "message"), [(np.nan, "misses 1 values"), (np.inf, "infinite")])
def test_values_that_are_none_are_refused(make_table: MakeTable, value: float, message: str) -> None:
    table = make_table()
    table.values[5, 1] = value
    with pytest.raises(InvalidTable, match=message):
        make_windows(table, data_spec())


def test_the_inference_window_is_the_one_training_would_cut(make_table: MakeTable) -> None:
    windows = make_windows(make_table(), data_spec())
    last = windows.test.batch(torch.tensor([len(windows.test) - 1]))
    times = make_table().times[184:196]
    batch = inference_batch(last.x_enc.numpy(), times, "h", WindowLengths(12, 5, 4))
    for name in ("x_enc", "x_mark_enc", "x_dec", "x_mark_dec"):
        assert_close(getattr(batch, name), getattr(last, name))
    assert batch.target.isnan().all()
    assert batch.target.shape == last.target.shape


def test_an_inference_window_needs_all_its_rows(make_table: MakeTable) -> None:
    table, lengths = make_table(), WindowLengths(12, 5, 4)
    with pytest.raises(InvalidForecastInput, match="12 rows"):
        inference_batch(table.values[None, :11], table.times[:11], "h", lengths)
    table.values[3, 2] = np.nan
    with pytest.raises(InvalidForecastInput, match="value 4 of column 3"):
        inference_batch(table.values[None, :12], table.times[:12], "h", lengths)
