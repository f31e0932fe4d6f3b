"""Forecasts farther ahead than a network's horizon, and the calendar they go along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pals_core.data.table import Table
from pals_core.errors import InvalidForecastInput
from pals_core.forecast import forecaster as module
from pals_core.forecast.forecaster import Forecaster, load_forecaster
from pals_core.training.train import train


@pytest.fixture(scope="module")
def forecaster(best_checkpoint: Path) -> Forecaster:
    return load_forecaster(best_checkpoint)


def extended(table: Table, times: pd.DatetimeIndex, values: np.ndarray) -> Table:
    return Table(
        pd.DatetimeIndex(table.times.append(times)), np.concatenate((table.values, values)), table.columns, "D"
    )


def test_it_goes_on_from_its_own_forecasts(forecaster: Forecaster, series: Table) -> None:
    table = series
    expected = []
    for _ in range(3):
        ahead = forecaster.forecast(table)
        expected.append(ahead.values)
        table = extended(table, ahead.timestamps, ahead.values)
    rolled = forecaster.forecast(series, horizon=10)
    assert list(rolled.timestamps) == list(pd.date_range(series.times[-1], periods=11, freq="D")[1:])
    assert rolled.values == pytest.approx(np.concatenate(expected)[:10], rel=1e-5)
    assert np.array_equal(forecaster.forecast(horizon=10).values, rolled.values)


def test_fewer_steps_are_the_first_ones(forecaster: Forecaster) -> None:
    whole, part = forecaster.forecast(), forecaster.forecast(horizon=3)
    assert np.array_equal(part.values, whole.values[:3])
    assert list(part.timestamps) == list(whole.timestamps[:3])
    assert np.array_equal(part.intervals[0].lower, whole.intervals[0].lower[:3])


def test_beyond_the_first_horizon_nothing_is_calibrated(forecaster: Forecaster) -> None:
    for interval in forecaster.forecast(horizon=10).intervals:
        assert np.isfinite(interval.lower[:4]).all()
        assert np.isnan(interval.lower[4:]).all()
        assert np.isnan(interval.upper[4:]).all()


@pytest.mark.parametrize("steps", [0, -1, 401, 10**9])
def test_steps_out_of_reach_are_refused(forecaster: Forecaster, steps: int) -> None:
    with pytest.raises(InvalidForecastInput, match="1 to 400 steps") as caught:
        forecaster.forecast(horizon=steps)
    assert caught.value.problems[0].pointer == "/horizon"


def test_an_answer_too_large_is_refused(forecaster: Forecaster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CELLS", 59)
    with pytest.raises(InvalidForecastInput, match="20 steps of 3 columns are too many"):
        forecaster.forecast(horizon=20)
    assert len(forecaster.forecast(horizon=16).values) == 16


def trained_on(table: Table, folder: Path, **data: Any) -> Forecaster:
    spec = {
        "data": {"input_len": 12, "label_len": 6, "horizon": 4, **data},
        "model": {"name": "nstransformer", "d_model": 8, "d_ff": 8, "heads": 2, "encoder_layers": 1},
        "method": "dense",
        "training": {"epochs": 1, "device": "cpu"},
    }
    return load_forecaster(train(spec, table, folder).path)


def test_a_known_future_is_needed_to_the_end_of_the_last_horizon(series: Table, tmp_path: Path) -> None:
    forecaster = trained_on(series, tmp_path, known_future=["noise"])
    days = pd.date_range(series.times[-1], periods=9, freq="D")[1:]
    values = np.random.default_rng(1).normal(size=8)
    future = pd.DataFrame({"noise": values}, index=days)
    rolled = forecaster.forecast(future=future, horizon=6)
    first = forecaster.forecast(future=future)
    table = extended(series, days[:4], np.column_stack((first.values, values[:4])))
    second = forecaster.forecast(table, future)
    assert rolled.values == pytest.approx(np.concatenate((first.values, second.values))[:6], rel=1e-5)
    other = future.copy()
    other.iloc[5] += 3
    assert not np.allclose(forecaster.forecast(future=other, horizon=6).values[4:], rolled.values[4:])
    with pytest.raises(InvalidForecastInput, match="missing at time step 7 of 8"):
        forecaster.forecast(future=future.iloc[:6], horizon=6)


def test_pooled_series_go_on_each_from_its_own(series: Table, tmp_path: Path) -> None:
    forecaster = trained_on(series, tmp_path, series="pooled")
    together = forecaster.forecast(horizon=9)
    for place, name in enumerate(series.columns):
        alone = forecaster.forecast(series=[name], horizon=9)
        assert together.values[:, place] == pytest.approx(alone.values[:, 0], rel=1e-5)


@pytest.mark.parametrize(
    ("frequency", "begin", "expected"),
    [
        # A Thursday: Friday, then Monday.
        ("B", "2024-02-22", ["2024-02-23", "2024-02-26", "2024-02-27", "2024-02-28", "2024-02-29", "2024-03-01"]),
        ("ME", "2023-11-30", ["2023-12-31", "2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30", "2024-05-31"]),
        ("BME", "2024-02-29", ["2024-03-29", "2024-04-30", "2024-05-31", "2024-06-28", "2024-07-31", "2024-08-30"]),
        ("MS", "2023-12-01", ["2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01", "2024-05-01", "2024-06-01"]),
        ("QE-DEC", "2023-12-31", ["2024-03-31", "2024-06-30", "2024-09-30", "2024-12-31", "2025-03-31", "2025-06-30"]),
        ("W-SAT", "2024-02-24", ["2024-03-02", "2024-03-09", "2024-03-16", "2024-03-23", "2024-03-30", "2024-04-06"]),
    ],
)
def test_the_calendar_goes_on_beyond_the_horizon(
    series: Table, tmp_path: Path, frequency: str, begin: str, expected: list[str]
) -> None:
    times = pd.date_range(end=begin, periods=260, freq=frequency).as_unit("us")
    assert times[-1] == pd.Timestamp(begin)
    table = Table(times, series.values, series.columns, frequency)
    forecast = trained_on(table, tmp_path).forecast(horizon=6)
    assert [str(time.date()) for time in forecast.timestamps] == expected


@pytest.mark.parametrize("change", ["2024-03-31 00:00", "2024-10-27 00:00"])
def test_hours_go_on_evenly_when_clocks_are_changed(series: Table, tmp_path: Path, change: str) -> None:
    """Local hours, an hour of which is left out in spring and occurs twice in autumn, are steps of UTC."""
    local = pd.date_range(end=pd.Timestamp(change, tz="Europe/Berlin"), periods=260, freq="h")
    frame = pd.DataFrame(series.values, index=local, columns=list(series.columns))
    forecaster = trained_on(Table.from_frame(frame), tmp_path)
    forecast = forecaster.forecast(frame, horizon=6)
    in_utc = local[-1].tz_convert("UTC").tz_localize(None)
    assert list(forecast.timestamps) == list(pd.date_range(in_utc, periods=7, freq="h")[1:])
    # An hour of the clock is missing, or comes twice, and no step is.
    shown = [time.tz_localize("UTC").tz_convert("Europe/Berlin").hour for time in forecast.timestamps]
    assert shown == ([1, 3, 4, 5, 6, 7] if "03" in change[5:7] else [1, 2, 2, 3, 4, 5])
