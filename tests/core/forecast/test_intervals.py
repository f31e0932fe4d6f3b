from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pals_core.data.split import Part
from pals_core.data.table import Table
from pals_core.errors import InvalidForecastInput
from pals_core.evaluation.conformal import half_widths
from pals_core.forecast.forecaster import Forecaster, _interval, load_forecaster
from pals_core.forecast.plain import forecast_json
from pals_core.spec import Spec
from pals_core.training.events import CheckpointSaved
from pals_core.training.train import train
from pals_core.training.trainer import Trainer

SPEC: dict[str, Any] = {
    "data": {"input_len": 12, "label_len": 6, "horizon": 4},
    "model": "nlinear",
    "method": "dense",
    "training": {"epochs": 1, "device": "cpu"},
}


@pytest.fixture(scope="module")
def forecaster(best_checkpoint: Path) -> Forecaster:
    return load_forecaster(best_checkpoint)


def test_without_a_wish_they_are_of_80_and_95_per_cent(forecaster: Forecaster) -> None:
    forecast = forecaster.forecast()
    # 23 validation windows allow levels up to 95.83.
    assert [interval.level for interval in forecast.intervals] == [80.0, 95.0]
    narrow, wide = forecast.intervals
    assert (wide.lower < narrow.lower).all()
    assert (narrow.lower < forecast.values).all()
    assert (forecast.values < narrow.upper).all()
    assert (narrow.upper < wide.upper).all()


def test_they_are_as_wide_as_the_calibration_says_in_the_datas_units(forecaster: Forecaster) -> None:
    calibration = forecaster.header.calibration
    assert calibration is not None
    forecast = forecaster.forecast(levels=(90, 42.5))
    assert [interval.level for interval in forecast.intervals] == [90, 42.5]
    for interval in forecast.intervals:
        half = half_widths(calibration, 4, interval.level) * np.array(forecaster.header.scaler_std)
        assert interval.upper - forecast.values == pytest.approx(half)
        assert forecast.values - interval.lower == pytest.approx(half)


def test_a_frame_has_a_column_for_every_bound_or_is_refused(forecaster: Forecaster) -> None:
    forecast = forecaster.forecast(levels=(80, 90, 90.0000001))
    frame = forecast.to_frame()
    names = [
        f"{name}-{bound}-{level}" for level in ("80", "90", "90.0000001") for bound in ("lo", "hi")
        for name in forecast.columns
    ]  # fmt: skip
    assert list(frame.columns) == [*forecast.columns, *names]
    expected = [forecast.values, *(bound for each in forecast.intervals for bound in (each.lower, each.upper))]
    assert (frame.to_numpy() == np.concatenate(expected, axis=1)).all()
    called_alike = replace(forecast, columns=(*forecast.columns[:-1], f"{forecast.columns[0]}-lo-80"))
    with pytest.raises(InvalidForecastInput, match="another one's bound"):
        called_alike.to_frame()


def test_their_quantiles_are_those_of_the_validation_residuals(forecaster: Forecaster, series: Table) -> None:
    """Each validation window is forecast from its recent values alone, as a user would."""
    residuals = []
    for first in range(182, 205):  # 70 % of 260 rows train, 26 rows validate, the last window begins 4 before their end
        ahead = forecaster.forecast(series.between(Part(0, first))).values
        residuals.append(np.abs(ahead - series.values[first : first + 4]))
    assert forecaster.header.calibration is not None
    assert forecaster.header.calibration.residuals == len(residuals) == 23
    (interval,) = forecaster.forecast(levels=(80,)).intervals
    rank = math.ceil(24 * 0.8)
    expected = np.sort(np.stack(residuals), axis=0)[rank - 1]
    assert (interval.upper - interval.lower) / 2 == pytest.approx(expected, rel=2e-3)


def test_none_are_given_when_none_are_wanted(forecaster: Forecaster) -> None:
    assert forecaster.forecast(levels=()).intervals == ()


@pytest.mark.parametrize(
    ("levels", "pointer", "message"),
    [
        ((80, 99), "/levels/1", "level 99 cannot be had from 23 residuals of the validation part; at most 95.83 can"),
        ((0,), "/levels/0", "above 0 and below 100"),
        ((-5,), "/levels/0", "above 0 and below 100"),
        ((50, 100), "/levels/1", "above 0 and below 100"),
        ((math.nan,), "/levels/0", "above 0 and below 100"),
    ],
)
def test_levels_that_cannot_be_had_are_refused(
    forecaster: Forecaster, levels: tuple[float, ...], pointer: str, message: str
) -> None:
    with pytest.raises(InvalidForecastInput, match=message) as caught:
        forecaster.forecast(levels=levels)
    assert caught.value.problems[0].pointer == pointer


def test_a_checkpoint_of_a_training_that_goes_on_has_no_calibration_and_says_so(
    series: Table, make_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    saved = next(event for event in Trainer(make_spec(), series, tmp_path).run() if isinstance(event, CheckpointSaved))
    early = load_forecaster(saved.path)
    assert early.header.calibration is None
    assert early.forecast().intervals == ()
    with pytest.raises(InvalidForecastInput, match="only the best one of a training") as caught:
        early.forecast(levels=(80,))
    assert caught.value.problems[0].pointer == "/levels"


def test_an_interval_that_no_number_holds_is_an_error() -> None:
    values, width = np.zeros((6, 2)), np.full((4, 1), 1e5)
    with pytest.raises(InvalidForecastInput, match="level 80 is not finite; ask for none") as caught:
        _interval(80.0, values, width, np.array([1.0, 1e305]))
    assert caught.value.problems[0].pointer == "/levels"
    beyond = _interval(80.0, values, width, np.array([1.0, 2.0])).upper
    assert beyond[:4].tolist() == [[1e5, 2e5]] * 4
    assert np.isnan(beyond[4:]).all()  # beyond the network's own horizon there is none


def test_pooled_series_have_them_in_units_of_their_own_and_new_ones_too(series: Table, tmp_path: Path) -> None:
    spec = SPEC | {"data": SPEC["data"] | {"series": "pooled", "targets": ["calm", "noise"]}}
    forecaster = load_forecaster(train(spec, series, tmp_path).path)
    calibration = forecaster.header.calibration
    assert calibration is not None
    forecast = forecaster.forecast(series, series=["noise", "rising", "calm"], levels=(80,))
    std = {
        "calm": forecaster.header.scaler_std[0],
        "noise": forecaster.header.scaler_std[1],
        "rising": series.values[:, 1].std(),
    }
    half = half_widths(calibration, 4, 80)[:, 0]
    for place, name in enumerate(forecast.columns):
        (interval,) = forecast.intervals
        assert interval.upper[:, place] - forecast.values[:, place] == pytest.approx(half * std[name])


def test_series_that_end_apart_have_intervals_where_they_have_forecasts(series: Table, tmp_path: Path) -> None:
    values = series.values[:, :2].copy()
    values[250:, 1] = np.nan
    table = Table(series.times, values, ("calm", "rising"), "D", (Part(0, 260), Part(0, 250)))
    forecaster = load_forecaster(train(SPEC, table, tmp_path).path)
    forecast = forecaster.forecast(levels=(80,))
    (interval,) = forecast.intervals
    assert np.array_equal(np.isnan(interval.lower), np.isnan(forecast.values))
    assert np.array_equal(np.isnan(interval.upper), np.isnan(forecast.values))
    assert np.isnan(forecast.values).sum() == 8


def test_as_plain_data(best_checkpoint: Path, forecaster: Forecaster) -> None:
    answer = json.loads(json.dumps(forecast_json(str(best_checkpoint), None, levels=[70.0], horizon=6)))
    (expected,) = forecaster.forecast(levels=(70,), horizon=6).intervals
    (interval,) = answer["intervals"]
    assert interval["level"] == 70
    for bound, values in (("lower", expected.lower), ("upper", expected.upper)):
        for place, name in enumerate(answer["columns"]):
            assert interval[bound][name] == [*values[:4, place], None, None]
