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
from pals_core.data.split import Part
from pals_core.data.table import Table
from pals_core.data.treatment import TreatedColumn
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


# --- pooled series --------------------------------------------------------------------------------


def ragged_table() -> Table:
    """Three series of 200, 120 and 90 hours that begin and end at different times."""
    rng = np.random.default_rng(3)
    times = pd.date_range("2021-01-01", periods=200, freq="h")
    spans = (Part(0, 200), Part(40, 160), Part(110, 200))
    values = np.full((200, 3), np.nan)
    for place, span in enumerate(spans):
        values[span.start : span.stop, place] = rng.normal(10 * place, 1 + place, span.rows)
    return Table(times, values, ("a", "b", "c"), "h", spans)


POOLED = {"series": "pooled", "input_len": 6, "label_len": 3, "horizon": 3}


def test_known_future_columns_are_treated_beside_each_pooled_series() -> None:
    table = ragged_table()
    values = np.column_stack((table.values[:, :2], np.ones(200)))
    values[50, 0] = np.nan
    spans = (*table.spans[:2], Part(0, 200))
    pooled = make_windows(
        Table(table.times, values, ("a", "b", "sun"), "h", spans),
        data_spec(**POOLED, known_future=["sun"], missing="ffill"),
    )
    assert pooled.treated == (
        TreatedColumn("a", 200, 1, None),
        TreatedColumn("sun beside a", 200, 0, 1.0),
        TreatedColumn("sun beside b", 120, 0, 1.0),
    )


def test_pooled_windows_are_those_of_each_series_by_itself() -> None:
    table = ragged_table()
    pooled = make_windows(table, data_spec(**POOLED))
    alone = [make_windows(table.select([name]), data_spec(**POOLED | {"series": "joint"})) for name in ("a", "b", "c")]
    assert pooled.columns == ("a", "b", "c")
    np.testing.assert_array_equal(pooled.scaler.mean, [one.scaler.mean[0] for one in alone])
    np.testing.assert_array_equal(pooled.scaler.std, [one.scaler.std[0] for one in alone])
    for name in ("train", "validation", "test"):
        together, parts = getattr(pooled, name), [getattr(one, name) for one in alone]
        assert len(together) == sum(map(len, parts))
        batch = together.batch(torch.arange(len(together)))
        for field in ("x_enc", "x_mark_enc", "x_dec", "x_mark_dec", "target"):
            expected = torch.cat([getattr(part.batch(torch.arange(len(part))), field) for part in parts])
            assert torch.equal(getattr(batch, field), expected), field
        assert together.series is not None
        assert torch.bincount(together.series).tolist() == [len(part) for part in parts]


def test_no_series_learns_of_another_or_of_its_own_future() -> None:
    table = ragged_table()
    before = make_windows(table, data_spec(**POOLED))
    changed = table.values.copy()
    changed[:, 0] += 50  # another series
    changed[40 + 84 :, 1] *= 9  # its own validation and test rows
    after = make_windows(replace(table, values=changed), data_spec(**POOLED))
    assert (before.scaler.mean[1:] == after.scaler.mean[1:]).all()
    assert (before.scaler.std[1:] == after.scaler.std[1:]).all()
    assert before.train.series is not None
    of_second = torch.nonzero(before.train.series == 1).flatten()
    one, other = before.train.batch(of_second), after.train.batch(of_second)
    assert torch.equal(one.x_enc, other.x_enc)
    assert torch.equal(one.target, other.target)


def test_moving_pooled_windows_keeps_the_parts_on_one_tensor() -> None:
    moved = make_windows(ragged_table(), data_spec(**POOLED)).to("meta")
    assert moved.train.values is moved.test.values
    assert moved.test.series is not None
    assert moved.test.series.device.type == "meta"


def test_a_series_without_room_is_named() -> None:
    with pytest.raises(InvalidSpec, match="validation part of series 'c' has"):
        make_windows(ragged_table(), data_spec(**POOLED | {"horizon": 12}))


# --- known-future columns ---------------------------------------------------------------------------


def test_known_future_columns_follow_the_calendar_in_scaled_units(make_table: MakeTable) -> None:
    table = make_table()
    windows = make_windows(table, data_spec(known_future=["c1"]), dtype=torch.float64)
    plain = make_windows(table, data_spec(targets=["c0", "c2"]), dtype=torch.float64)
    assert windows.columns == ("c0", "c2")
    assert torch.equal(windows.train.values, plain.train.values)
    assert torch.equal(windows.train.marks[:, :-1], plain.train.marks)
    train = table.values[:140, 1]
    np.testing.assert_allclose(windows.train.marks[:, -1], (table.values[:, 1] - train.mean()) / train.std())
    batch = windows.test.batch(torch.tensor([0]))
    # The horizon's values are there, which is what makes their future known.
    np.testing.assert_allclose(batch.x_mark_dec[0, 5:, -1], windows.test.marks[160:164, -1])


@pytest.mark.parametrize("policy", ["interpolate", "ffill", "mask"])
def test_a_known_future_column_is_scaled_and_filled_from_each_part_alone(make_table: MakeTable, policy: str) -> None:
    table = make_table()
    table.values[[3, 50, 139, 150, 170], 1] = np.nan
    later = table.values.copy()
    later[140:] = np.where(np.isnan(later[140:]), np.nan, later[140:] * 100)
    spec = data_spec(known_future=["c1"], missing=policy)
    before, after = make_windows(table, spec), make_windows(replace(table, values=later), spec)
    assert (before.known_future.mean == after.known_future.mean).all()
    assert torch.equal(before.train.marks[:140], after.train.marks[:140])
    assert before.train.marks.isfinite().all()


# --- masked missing values --------------------------------------------------------------------------


def gappy_table() -> Table:
    table = counting_table(200)
    table.values[[5, 6, 30, 150, 199], 0] = np.nan
    table.values[20:60, 1] = np.nan
    return table


def test_masked_values_are_zero_and_the_scaling_is_that_of_the_known_ones() -> None:
    table = gappy_table()
    windows = make_windows(table, data_spec(missing="mask"), dtype=torch.float64)
    np.testing.assert_allclose(windows.scaler.mean, np.nanmean(table.values[:140], axis=0))
    np.testing.assert_allclose(windows.scaler.std, np.nanstd(table.values[:140], axis=0))
    everything = windows.train.batch(torch.arange(len(windows.train)))
    assert everything.known is not None
    assert everything.known.shape == everything.target.shape
    assert (everything.target[~everything.known] == 0).all()
    first = windows.train.batch(torch.tensor([0]))
    assert (first.x_enc[0, 5:7, 0] == 0).all()
    assert (windows.train.values[~windows.train.known] == 0).all()


def test_the_masked_future_never_changes_the_past() -> None:
    table = gappy_table()
    later = table.values.copy()
    later[140:] = 1e6
    before = make_windows(table, data_spec(missing="mask"))
    after = make_windows(replace(table, values=later), data_spec(missing="mask"))
    assert (before.scaler.mean == after.scaler.mean).all()
    assert torch.equal(before.train.values[:140], after.train.values[:140])


def test_windows_without_a_known_target_are_left_out() -> None:
    table = counting_table(200, columns=1)
    table.values[60:70] = np.nan
    windows = make_windows(table, data_spec(missing="mask", label_len=2))
    whole = make_windows(counting_table(200, columns=1), data_spec(label_len=2))
    # Horizons of 4 steps that begin at 60 to 66 hold nothing else.
    assert len(whole.train) - len(windows.train) == 7
    batch = windows.train.batch(torch.arange(len(windows.train)))
    assert batch.known is not None
    assert batch.known.any(dim=1).all()
    assert len(whole.test) == len(windows.test)


@pytest.mark.parametrize("policy", ["interpolate", "ffill"])
def test_filled_values_are_learnt_from_and_neither_decide_nor_measure(policy: str) -> None:
    table = counting_table(240, columns=2)
    table.values[[30, 31, 200, 230], 0] = np.nan
    table.values[180:186] = np.nan  # more than a horizon of the validation part
    windows = make_windows(table, data_spec(missing=policy, label_len=2))
    whole = make_windows(counting_table(240, columns=2), data_spec(label_len=2))

    assert windows.train.batch(torch.arange(len(windows.train))).known is None
    assert len(windows.train) == len(whole.train)
    assert windows.left_out == 0
    known = torch.tensor(~np.isnan(table.values))
    for part in (windows.validation, windows.test, windows.to("cpu").validation):
        batch = part.batch(torch.arange(len(part)))
        assert batch.known is not None
        horizons = part.starts[:, None] + torch.arange(part.lengths.input_len, part.lengths.input_len + 4)
        assert torch.equal(batch.known, known[horizons])
        assert batch.target.isfinite().all()
    # Horizons of 4 steps that begin at 180, 181 and 182.
    assert len(windows.validation) == len(whole.validation) - 3


def test_without_missing_values_nothing_is_masked(make_table: MakeTable) -> None:
    windows = make_windows(make_table(), data_spec(missing="mask"))
    assert windows.train.known is None
    assert windows.train.batch(torch.tensor([0])).known is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [(slice(0, 140), "no value at all in the training part"), (slice(140, 160), "the validation part has a target")],
)
def test_a_part_without_any_known_target_is_refused(rows: slice, message: str) -> None:
    table = counting_table(200, columns=1)
    table.values[rows] = np.nan
    with pytest.raises(InvalidTable, match=message):
        make_windows(table, data_spec(missing="mask"))
