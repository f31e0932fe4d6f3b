from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pals_core import backtest
from pals_core.checkpoint.container import read_header
from pals_core.data.split import Part
from pals_core.data.table import Table
from pals_core.errors import InvalidForecastInput, InvalidTable
from pals_core.evaluation.document import Evaluation
from pals_core.forecast.forecaster import load_forecaster
from pals_core.training.train import train


def spec_of(**data: Any) -> dict[str, Any]:
    return {
        "data": {"input_len": 12, "label_len": 6, "horizon": 4, **data},
        "model": {"name": "nstransformer", "d_model": 8, "d_ff": 8, "heads": 2, "encoder_layers": 1},
        "method": "dense",
        "training": {"epochs": 1, "device": "cpu"},
    }


def same(one: Evaluation, other: Evaluation) -> None:
    """All but the last digits agree."""
    left, right = one.model_dump(), other.model_dump()
    for name in ("columns", "windows", "stride", "first_step", "last_step", "season", "calibration_residuals"):
        assert left[name] == right[name], name
    for kind in ("forecaster", "naive"):
        for name in ("scaled", "original"):
            assert left[kind]["overall"][name] == pytest.approx(right[kind]["overall"][name], rel=1e-9)
            for error in ("mse", "mae", "rmse", "smape"):
                for place in ("by_step", "by_column"):
                    assert left[kind][place][name][error] == pytest.approx(right[kind][place][name][error], rel=1e-6)
        assert left[kind]["overall"]["mase"] == pytest.approx(right[kind]["overall"]["mase"], rel=1e-9)
    for interval, expected in zip(one.intervals, other.intervals, strict=True):
        assert interval.coverage == pytest.approx(expected.coverage)


@pytest.mark.parametrize("data", [{}, {"series": "pooled"}, {"known_future": ["noise"]}], ids=str)
def test_of_every_step_of_the_test_part_it_is_the_evaluation(
    series: Table, tmp_path: Path, data: dict[str, Any]
) -> None:
    trained = train(spec_of(**data), series, tmp_path)
    same(backtest(trained.path, series, start=series.times[208]), trained.evaluation)


def test_forecasts_are_those_that_would_have_been_made(best_checkpoint: Path, series: Table) -> None:
    found = backtest(best_checkpoint, series, stride=30)
    forecaster, header = load_forecaster(best_checkpoint), read_header(best_checkpoint)
    firsts = range(12, 257, 30)
    errors = [
        (forecaster.forecast(series.between(Part(0, first))).values - series.values[first : first + 4])
        for first in firsts
    ]
    naive = [series.values[first - 7 : first - 3] - series.values[first : first + 4] for first in firsts]
    assert (found.windows, found.stride, found.season) == (len(firsts), 30, 7)
    assert found.first_step == series.times[12].isoformat()
    assert found.last_step == series.times[firsts[-1] + 3].isoformat()
    std = np.array(header.scaler_std)
    for made, expected in ((found.forecaster, errors), (found.naive, naive)):
        assert made.overall.original.mae == pytest.approx(np.abs(expected).mean(), rel=1e-4)
        assert made.overall.scaled.mse == pytest.approx(np.square(expected / std).mean(), rel=1e-4)
        assert made.by_step.original.mae == pytest.approx(np.abs(expected).mean(axis=(0, 2)), rel=1e-4)
    train_part = series.values[:182]
    scale = np.abs(train_part[7:] - train_part[:-7]).mean(axis=0)
    assert found.forecaster.overall.mase == pytest.approx((np.abs(errors) / scale).mean(), rel=1e-4)


def test_any_table_of_the_columns_will_do(best_checkpoint: Path, series: Table, tmp_path: Path) -> None:
    part = series.between(Part(60, 200))
    frame = pd.DataFrame(part.values, index=part.times, columns=list(part.columns))[["noise", "calm", "rising"]]
    frame["another"] = 1.0
    path = tmp_path / "table.csv"
    frame.to_csv(path, index_label="date")
    expected = backtest(best_checkpoint, part, stride=5)
    same(backtest(str(best_checkpoint), frame, stride=5), expected)
    same(backtest(best_checkpoint, path, stride=5), expected)
    assert expected.first_step == series.times[72].isoformat()


def test_a_season_longer_than_the_input_is_waited_for(series: Table, tmp_path: Path) -> None:
    trained = train(spec_of(input_len=5, label_len=2), series, tmp_path)
    found = backtest(trained.path, series)
    assert found.first_step == series.times[7].isoformat()
    assert found.windows == 260 - 7 - 3


def test_pooled_series_are_tested_each_from_its_own_start(series: Table, tmp_path: Path) -> None:
    trained = train(spec_of(series="pooled"), series, tmp_path)
    values = series.values[:, :2].copy()
    values[:100, 1] = np.nan
    ragged = Table(series.times, values, ("calm", "rising"), "D", (Part(0, 260), Part(100, 260)))
    found = backtest(trained.path, ragged, stride=10)
    assert found.columns == ("calm", "rising")
    assert found.windows == len(range(12, 257, 10)) + len(range(12, 157, 10))
    alone = backtest(trained.path, series.between(Part(100, 260)).select(["rising"]), stride=10)
    assert found.forecaster.by_column.scaled.mse[1] == pytest.approx(alone.forecaster.overall.scaled.mse, rel=1e-5)
    assert found.naive.by_column.original.mae[1] == pytest.approx(alone.naive.overall.original.mae, rel=1e-5)


def test_missing_targets_are_left_out_as_in_training(series: Table, tmp_path: Path) -> None:
    trained = train(spec_of(missing="mask"), series, tmp_path)
    values = series.values.copy()
    values[130:, 2] = np.nan
    found = backtest(trained.path, Table(series.times, values, series.columns, "D"), start="2021-07-09")
    assert found.forecaster.by_column.scaled.mse[2] is None
    assert found.forecaster.by_column.scaled.mse[0] is not None


def test_resampled_data_are_resampled_as_in_training(series: Table, tmp_path: Path) -> None:
    hours = pd.date_range("2021-03-01", periods=260 * 2, freq="12h").as_unit("us")
    table = Table(hours, np.repeat(series.values, 2, axis=0), series.columns, "12h")
    trained = train(spec_of(resample="D"), table, tmp_path)
    same(backtest(trained.path, table), backtest(trained.path, series))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        pytest.param(lambda table: table.between(Part(0, 15)), {}, "more rows", id="too short"),
        pytest.param(
            lambda table: table, {"start": "2030-01-01"}, "start, 2030-01-01, .* begin earlier", id="beyond the end"
        ),
        pytest.param(lambda table: table, {"stride": 0}, "stride is 0", id="no stride"),
        pytest.param(lambda table: table.select(["calm"]), {}, "'rising' is missing", id="a column less"),
        pytest.param(
            lambda table: Table(table.times[::2], table.values[::2], table.columns, "2D"),
            {},
            "2D steps",
            id="another frequency",
        ),
        pytest.param(
            lambda table: Table(table.times, np.where(table.values > 205, np.nan, table.values), table.columns, "D"),
            {},
            "misses .* the model was trained on values without gaps",
            id="missing values",
        ),
        pytest.param(
            lambda table: Table(table.times, np.where(table.values > 205, np.inf, table.values), table.columns, "D"),
            {},
            "infinite",
            id="infinite values",
        ),
        pytest.param(
            lambda table: Table(table.times, table.values * 1e300, table.columns, "D"), {}, "finite", id="out of reach"
        ),
    ],
)
def test_what_cannot_be_tested_is_refused(
    best_checkpoint: Path, series: Table, change: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidForecastInput, match=message) as caught:
        backtest(best_checkpoint, change(series), **options)
    assert caught.value.problems


def test_a_table_that_cannot_be_read_is_refused(best_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("nothing\n")
    with pytest.raises(InvalidTable):
        backtest(best_checkpoint, path)


def test_a_start_with_a_zone_is_that_moment(best_checkpoint: Path, series: Table) -> None:
    start = series.times[200].tz_localize("UTC").tz_convert("America/New_York")
    assert backtest(best_checkpoint, series, start=start) == backtest(best_checkpoint, series, start=series.times[200])


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_a_midnight_of_a_zone_is_a_day_where_the_steps_are_days(
    best_checkpoint: Path, series: Table, zone: str
) -> None:
    start = series.times[200].tz_localize(zone)
    assert backtest(best_checkpoint, series, start=start) == backtest(best_checkpoint, series, start=series.times[200])


@pytest.mark.parametrize("policy", ["interpolate", "ffill"])
def test_filled_values_are_nothing_to_be_compared_with(series: Table, tmp_path: Path, policy: str) -> None:
    values = series.values.copy()
    values[[30, 215, 216, 240], 0] = np.nan
    values[220:226] = np.nan
    gappy = Table(series.times, values, series.columns, "D")
    trained = train(spec_of(missing=policy), gappy, tmp_path)
    assert trained.evaluation.windows == len(range(208, 260 - 3)) - 3  # horizons of 4 steps that begin at 220 to 222
    again = backtest(trained.path, gappy, start=str(gappy.times[208]))
    assert again.windows == trained.evaluation.windows
    # The one with 225 in the middle is forecast, and of its steps only known ones count.
    of_one = backtest(trained.path, gappy, start=str(gappy.times[223]), stride=100)
    shown = of_one.samples[0].actual["calm"]
    assert [value is None for value in shown] == [True, True, True, False]
    error = load_forecaster(trained.path).forecast(gappy.between(Part(0, 223))).values[3] - values[226]
    scaled = (error / np.array(load_forecaster(trained.path).header.scaler_std)) ** 2
    if policy == "ffill":  # without the values after the gap the network has read the same
        assert of_one.forecaster.overall.scaled.mse == pytest.approx(scaled.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": "soon"}, "start is 'soon'"),
        ({"start": pd.NaT}, "start is NaT"),
        ({"start": 5}, "start is 5"),
        ({"start": [1]}, "which is no time"),
        ({"stride": 1.5}, "stride is 1.5"),
        ({"stride": 0}, "stride is 0"),
    ],
    ids=str,
)
def test_a_wrong_start_or_stride_is_refused(
    best_checkpoint: Path, series: Table, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidForecastInput, match=message):
        backtest(best_checkpoint, series, **wrong)
