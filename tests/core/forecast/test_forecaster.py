from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pals_core.checkpoint.file import read_checkpoint
from pals_core.data.table import Table
from pals_core.data.windows import make_windows
from pals_core.errors import InvalidForecastInput
from pals_core.forecast.forecaster import Forecaster, load_forecaster
from pals_core.forecast.plain import forecast_json
from pals_core.training.trainer import Trainer


@pytest.fixture(scope="module")
def forecaster(best_checkpoint: Path) -> Forecaster:
    return load_forecaster(best_checkpoint)


def part(series: Table, rows: slice) -> Table:
    return Table(series.times[rows], series.values[rows], series.columns, series.frequency)


def frame_of(table: Table) -> pd.DataFrame:
    return pd.DataFrame(table.values, index=table.times, columns=list(table.columns))


def rows_of(table: Table) -> dict[str, Any]:
    return {
        "timestamps": [time.isoformat() for time in table.times],
        "values": {name: table.values[:, place].tolist() for place, name in enumerate(table.columns)},
    }


def test_without_data_it_goes_on_where_the_series_ends(forecaster: Forecaster, series: Table) -> None:
    forecast = forecaster.forecast()
    assert list(forecast.timestamps) == list(pd.date_range(series.times[-1], periods=5, freq="D")[1:])
    assert forecast.columns == series.columns
    assert forecast.values.shape == (4, 3)
    assert np.array_equal(forecast.values, forecaster.forecast(series).values)


def test_the_values_are_in_the_units_of_the_data(forecaster: Forecaster, series: Table) -> None:
    errors = np.abs(forecaster.forecast(part(series, slice(0, 256))).values - series.values[256:])
    assert (errors.max(axis=0) < [2.0, 20.0, 1.0]).all()


def test_it_says_what_the_network_says(forecaster: Forecaster, best_checkpoint: Path, series: Table) -> None:
    checkpoint = read_checkpoint(best_checkpoint)
    windows = make_windows(series, checkpoint.header.spec.data, "cpu", torch.float32)
    last = len(windows.test) - 1
    batch = windows.test.batch(torch.tensor([last]))
    with torch.no_grad():
        output = checkpoint.build()(batch.x_enc, batch.x_mark_enc, batch.x_dec, batch.x_mark_dec)[0]
    expected = windows.scaler.unscale(output.double().numpy())
    assert forecaster.forecast(part(series, slice(0, 256))).values == pytest.approx(expected, rel=1e-6)


def test_a_reloaded_forecaster_says_the_same_and_draws_nothing(best_checkpoint: Path, forecaster: Forecaster) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    again = load_forecaster(str(best_checkpoint)).forecast()
    assert np.array_equal(again.values, forecaster.forecast().values)
    assert torch.equal(torch.get_rng_state(), before)


def test_columns_may_come_in_any_order_and_with_others(forecaster: Forecaster, series: Table) -> None:
    frame = frame_of(series)[["noise", "calm", "rising"]]
    frame["another"] = np.arange(len(frame)) ** 2.0
    assert np.array_equal(forecaster.forecast(frame).values, forecaster.forecast(series).values)


def test_only_the_last_rows_matter(forecaster: Forecaster, series: Table) -> None:
    short = forecaster.forecast(part(series, slice(-12, None)))
    assert np.array_equal(short.values, forecaster.forecast(series).values)


def test_a_frame_of_the_forecast_is_labelled(forecaster: Forecaster, series: Table) -> None:
    assert tuple(forecaster.forecast(levels=()).to_frame().columns) == series.columns
    frame = forecaster.forecast(levels=(60,)).to_frame()
    bounds = [f"{name}-{bound}-60" for bound in ("lo", "hi") for name in series.columns]
    assert list(frame.columns) == [*series.columns, *bounds]
    assert frame.index[0] == series.times[-1] + pd.Timedelta(days=1)


def without(frame: pd.DataFrame, row: int) -> pd.DataFrame:
    changed = frame.copy()
    changed.iloc[row, 1] = np.nan
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda frame: frame.iloc[:11], "12 time steps .* 11 were", id="too few rows"),
        pytest.param(lambda frame: frame.iloc[:1], "12 time steps .* 1 were", id="one row"),
        pytest.param(lambda frame: frame.drop(columns="calm"), "'calm' is missing", id="a column less"),
        pytest.param(lambda frame: frame.iloc[::2], "2D steps.* add them, left empty", id="another frequency"),
        pytest.param(lambda frame: frame.drop(index=frame.index[-3]), "misses", id="a missing step"),
        pytest.param(lambda frame: without(frame, -2), "misses 1 values", id="a missing value"),
        pytest.param(lambda frame: frame.iloc[::-1], ".", id="backwards"),
        pytest.param(lambda frame: frame.astype(str) + " kg", ".", id="text"),
        pytest.param(lambda frame: frame.replace(frame.iloc[-1, 0], np.inf), "infinite", id="infinite"),
        pytest.param(lambda frame: frame * 1e300, "not finite", id="values out of reach"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    forecaster: Forecaster, series: Table, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    with pytest.raises(InvalidForecastInput, match=message) as caught:
        forecaster.forecast(change(frame_of(part(series, slice(-30, None)))))
    assert caught.value.problems


def test_gaps_are_filled_as_in_training(series: Table, make_spec: Callable[..., Any], tmp_path: Path) -> None:
    spec = make_spec(data={"missing": "ffill"}, model={"name": "dlinear"}, training={"epochs": 1})
    gappy = Table(series.times, series.values.copy(), series.columns, series.frequency)
    gappy.values[-2] = np.nan
    for _ in Trainer(spec, gappy, tmp_path).run():
        pass
    forecaster = load_forecaster(tmp_path / "epoch-001.pals.safetensors")
    filled = Table(series.times, gappy.values.copy(), series.columns, series.frequency)
    filled.values[-2] = filled.values[-3]
    expected = forecaster.forecast(filled).values
    assert np.array_equal(forecaster.forecast(gappy).values, expected)
    assert np.array_equal(forecaster.forecast().values, expected)


def test_rows_that_are_absent_are_filled_as_in_training(
    series: Table, make_spec: Callable[..., Any], tmp_path: Path
) -> None:
    spec = make_spec(data={"missing": "interpolate"}, model={"name": "dlinear"}, training={"epochs": 1})
    list(Trainer(spec, series, tmp_path).run())
    forecaster = load_forecaster(tmp_path / "epoch-001.pals.safetensors")
    # Eleven rows over thirteen steps; every second row of most, so that these tell no frequency.
    for absent in ([-3, -5], [-2, -4, -6, -8, -10, -12, -14, -16, -19]):
        rows = frame_of(part(series, slice(-13 if len(absent) == 2 else -22, None)))
        given = rows.drop(index=rows.index[absent])
        expected = rows.copy()
        expected.loc[rows.index[absent]] = np.nan
        assert np.array_equal(forecaster.forecast(given).values, forecaster.forecast(expected.interpolate()).values)
        file = tmp_path / "recent.csv"
        given.to_csv(file)
        assert np.array_equal(forecaster.forecast(file).values, forecaster.forecast(given).values)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"horizon": 2.5}, "horizon is 2.5; it must be a whole number"),
        ({"horizon": "3"}, "horizon is '3'; it must be a whole number"),
        ({"horizon": True}, "horizon is True; it must be a whole number"),
        ({"levels": 80}, "levels is 80; give a list"),
        ({"levels": "80"}, "levels is '80'; give a list"),
        ({"levels": np.array(80.0)}, "give a list"),
        ({"levels": ["80"]}, "not '80'"),
        ({"levels": [True]}, "not True"),
        ({"levels": [0.0]}, "not 0"),
    ],
    ids=str,
)
def test_wrong_numbers_are_refused(forecaster: Forecaster, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidForecastInput, match=message):
        forecaster.forecast(**wrong)


def test_numbers_may_be_numpys(forecaster: Forecaster) -> None:
    asked = forecaster.forecast(horizon=np.int64(2), levels=np.array([80.0]))
    assert np.array_equal(asked.values, forecaster.forecast(horizon=2, levels=[80]).values)
    assert [interval.level for interval in forecaster.forecast(levels=pd.Series([80, 90])).intervals] == [80, 90]


def test_json_in_json_out(best_checkpoint: Path, forecaster: Forecaster, series: Table) -> None:
    recent = part(series, slice(-20, None))
    answer = json.loads(json.dumps(forecast_json(str(best_checkpoint), rows_of(recent)), allow_nan=False))
    expected = forecaster.forecast(recent)
    assert answer["columns"] == list(series.columns)
    assert answer["timestamps"] == [time.isoformat() for time in expected.timestamps]
    assert np.array_equal(np.array([answer["values"][name] for name in series.columns]).T, expected.values)
    assert forecast_json(str(best_checkpoint), None) == forecast_json(str(best_checkpoint), rows_of(series))


def test_json_times_with_a_zone_are_read_as_utc(best_checkpoint: Path, series: Table) -> None:
    rows = rows_of(series)
    zoned = {**rows, "timestamps": [f"{time}Z" for time in rows["timestamps"]]}
    assert forecast_json(str(best_checkpoint), zoned) == forecast_json(str(best_checkpoint), rows)


@pytest.mark.parametrize(
    ("rows", "pointer"),
    [
        pytest.param({}, "/timestamps", id="nothing"),
        pytest.param({"timestamps": "2021", "values": {"calm": [1]}}, "/timestamps", id="no list"),
        pytest.param({"timestamps": ["2021"], "values": {"calm": ["much"]}}, "/values/calm/0", id="no number"),
        pytest.param({"timestamps": ["2021"], "values": {"calm": [1, 2]}}, "/values/calm", id="unequal lengths"),
        pytest.param({"timestamps": ["2021"], "values": {"calm": [float("nan")]}}, "/values/calm/0", id="NaN"),
        pytest.param({"timestamps": ["2021"], "values": {"calm": [1]}, "more": 1}, "/more", id="unknown field"),
    ],
)
def test_malformed_json_is_refused_with_a_pointer(best_checkpoint: Path, rows: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidForecastInput) as caught:
        forecast_json(str(best_checkpoint), rows)
    assert pointer in [problem.pointer for problem in caught.value.problems]


def test_times_that_cannot_be_read_are_refused(best_checkpoint: Path, series: Table) -> None:
    rows = rows_of(series)
    rows["timestamps"][5] = "yesterday"
    with pytest.raises(InvalidForecastInput):
        forecast_json(str(best_checkpoint), rows)


def test_a_horizon_beyond_the_calendar_is_refused(forecaster: Forecaster, series: Table) -> None:
    last = np.iinfo(np.int64).max // 86_400_000_000 * 86_400_000_000
    days = last - np.arange(11, -1, -1) * 86_400_000_000
    times = pd.DatetimeIndex(days.view("datetime64[us]"))
    with pytest.raises(InvalidForecastInput, match="beyond the last date"):
        forecaster.forecast(Table(times, series.values[:12], series.columns, "D"))
