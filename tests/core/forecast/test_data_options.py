"""Forecasts with known-future columns, of pooled series, with missing values, and at a slower frequency."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pals_core.data.audit import profile_of
from pals_core.data.split import Part
from pals_core.data.table import Table
from pals_core.errors import InvalidForecastInput, InvalidSpec
from pals_core.feasibility import check, resolve
from pals_core.forecast.forecaster import Forecaster, load_forecaster
from pals_core.forecast.plain import forecast_json
from pals_core.spec import Spec
from pals_core.training.trainer import Trainer
from tests.core.training.option_tables import NSTRANSFORMER, gappy, hourly, long, wide

DATA = {"input_len": 12, "label_len": 6, "horizon": 4}


@pytest.fixture(scope="module")
def trained_on(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def build(table: Table, model: Any = "nlinear", **data: Any) -> Path:
        fields = {
            "data": DATA | data,
            "model": model,
            "method": "dense",
            "training": {"epochs": 1, "learning_rate": 0.01, "device": "cpu"},
        }
        spec = resolve(Spec.model_validate(fields), profile_of(table))
        assert check(spec, profile_of(table)) == () or data.get("missing") is None
        folder = tmp_path_factory.mktemp("trained")
        for _ in Trainer(spec, table, folder).run():
            pass
        return folder / "epoch-001.pals.safetensors"

    return build


def frame_of(table: Table, columns: list[str] | None = None) -> pd.DataFrame:
    frame = pd.DataFrame(table.values, index=table.times, columns=list(table.columns))
    return frame if columns is None else frame[columns]


def rows_of(frame: pd.DataFrame) -> dict[str, Any]:
    return {
        "timestamps": [time.isoformat() for time in frame.index],
        "values": {str(name): [None if np.isnan(v) else v for v in frame[name]] for name in frame.columns},
    }


def same(one: Any, other: Any) -> bool:
    return bool(np.array_equal(one.values, other.values, equal_nan=True)) and one.timestamps.equals(other.timestamps)


# --- known future -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_sun_path(trained_on: Callable[..., Path]) -> Path:
    return trained_on(wide(), NSTRANSFORMER, known_future=["sun"])


@pytest.fixture(scope="module")
def with_sun(with_sun_path: Path) -> Forecaster:
    return load_forecaster(with_sun_path)


def sunny(steps: int = 4, start: str = "2022-09-17") -> pd.DataFrame:
    """The four days after the series' end."""
    return pd.DataFrame({"sun": np.arange(steps) - 1.5}, index=pd.date_range(start, periods=steps, freq="D"))


def test_the_future_values_have_a_say(with_sun: Forecaster, tmp_path: Path) -> None:
    forecast = with_sun.forecast(future=sunny())
    assert forecast.columns == ("sales", "other")
    assert forecast.timestamps[0] == pd.Timestamp("2022-09-17")
    assert not same(forecast, with_sun.forecast(future=sunny() + 1))
    assert same(forecast, with_sun.forecast(wide(), sunny()))
    # More steps than the horizon has, another column, and a table do no harm.
    longer = pd.concat([sunny(), sunny(3, "2022-09-21")]).assign(rain=1.0)
    assert same(forecast, with_sun.forecast(future=longer))
    assert same(forecast, with_sun.forecast(future=Table.from_frame(longer)))
    longer.to_csv(tmp_path / "future.csv")
    assert same(forecast, with_sun.forecast(future=tmp_path / "future.csv"))
    with pytest.raises(InvalidForecastInput, match=r"the future values cannot be read: .* not a dict"):
        with_sun.forecast(future={"sun": [1.0]})  # type: ignore[arg-type]


def test_one_step_of_future_is_enough_for_one_step_of_horizon(trained_on: Callable[..., Path], tmp_path: Path) -> None:
    forecaster = load_forecaster(trained_on(wide(), NSTRANSFORMER, known_future=["sun"], horizon=1))
    values = forecaster.forecast(future=sunny(1)).values
    assert np.isfinite(values).all()
    # One midnight of a zone tells no day by itself; the network's steps do.
    zoned = sunny(1).tz_localize("America/New_York")
    assert (forecaster.forecast(future=zoned).values == values).all()
    zoned.to_csv(tmp_path / "future.csv")
    assert (forecaster.forecast(future=tmp_path / "future.csv").values == values).all()


@pytest.mark.parametrize(
    ("future", "message"),
    [
        (None, "needs the future values of sun at the 4 time steps from 2022-09-17"),
        (sunny().rename(columns={"sun": "moon"}), "future values of column 'sun' are missing"),
        (sunny().drop(index=pd.Timestamp("2022-09-19")), "column 'sun' is missing at time step 3 of 4, 2022-09-19"),
        (sunny(4, "2022-09-18"), "missing at time step 1 of 4"),
        (sunny(3), "missing at time step 4 of 4"),
        (sunny().replace(-0.5, np.nan), "'sun' is missing at time step 2 of 4, 2022-09-18"),
        (sunny().replace(-0.5, np.inf), "infinite"),
        (sunny().astype(str) + " W", "future"),
        (sunny()[::-1], "earlier"),
        (sunny()[:0], "cannot be read"),
    ],
)
def test_a_future_that_does_not_reach_is_refused(
    with_sun: Forecaster, future: pd.DataFrame | None, message: str
) -> None:
    with pytest.raises(InvalidForecastInput, match=message) as refused:
        with_sun.forecast(future=future)
    assert refused.value.problems


def test_the_recent_values_need_the_known_future_columns_too(with_sun: Forecaster) -> None:
    with pytest.raises(InvalidForecastInput, match="column 'sun' is missing"):
        with_sun.forecast(frame_of(wide(), ["sales", "other"]), sunny())


def test_a_future_nobody_asks_for_is_refused(trained_on: Callable[..., Path]) -> None:
    forecaster = load_forecaster(trained_on(wide()))
    with pytest.raises(InvalidForecastInput, match="leave future out"):
        forecaster.forecast(future=sunny())


def test_missing_future_values_follow_the_policy(trained_on: Callable[..., Path]) -> None:
    table = gappy()
    forecaster = load_forecaster(trained_on(table, NSTRANSFORMER, known_future=["sun"], missing="ffill"))
    gap, filled = sunny(), sunny()
    gap.iloc[1:3] = np.nan
    filled.iloc[1:3] = filled.iloc[0, 0]
    assert same(forecaster.forecast(future=gap), forecaster.forecast(future=filled))
    masked = load_forecaster(trained_on(table, NSTRANSFORMER, known_future=["sun"], missing="mask"))
    mean = sunny()
    mean.iloc[1:3] = masked.header.known_future_mean[0][0]
    assert masked.forecast(future=gap).values == pytest.approx(masked.forecast(future=mean).values, rel=1e-5)


def test_the_future_as_json(with_sun: Forecaster, with_sun_path: Path) -> None:
    answer = forecast_json(str(with_sun_path), None, future=rows_of(sunny()))
    assert answer["values"]["sales"] == with_sun.forecast(future=sunny()).values[:, 0].tolist()
    with pytest.raises(InvalidForecastInput) as refused:
        forecast_json(str(with_sun_path), None, future={"timestamps": ["2022-09-17"], "values": {"sun": ["much"]}})
    assert refused.value.problems[0].pointer == "/future/values/sun/0"


# --- pooled series ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pooled_path(trained_on: Callable[..., Path]) -> Path:
    return trained_on(long())


@pytest.fixture(scope="module")
def pooled(pooled_path: Path) -> Forecaster:
    return load_forecaster(pooled_path)


def test_each_series_is_forecast_after_its_own_end(pooled: Forecaster) -> None:
    forecast = pooled.forecast()
    assert forecast.columns == ("a", "b", "c")
    known = pd.DataFrame(~np.isnan(forecast.values), forecast.timestamps, forecast.columns)
    for name, end in zip("abc", (200, 170, 200), strict=True):
        expected = pd.date_range(long().times[end - 1], periods=5, freq="D")[1:]
        assert list(known.index[known[name]]) == list(expected)
    assert same(forecast, pooled.forecast(long()))
    assert forecast.timestamps.is_monotonic_increasing


def test_a_series_is_forecast_alike_alone_and_among_others(pooled: Forecaster) -> None:
    everything = pooled.forecast().to_frame()
    alone = pooled.forecast(series=["b"]).to_frame()
    assert alone["b"].tolist() == pytest.approx(everything["b"].dropna().tolist())
    recent = frame_of(long(), ["b"])[20:170]
    assert pooled.forecast(recent).to_frame()["b"].tolist() == pytest.approx(alone["b"].tolist())
    assert pooled.forecast(series=["c", "a"]).columns == ("c", "a")


def test_a_series_of_the_training_keeps_its_scale(pooled: Forecaster) -> None:
    recent = frame_of(long(), ["b"])[20:170]
    new = recent.rename(columns={"b": "n"})
    known, unknown = pooled.forecast(recent), pooled.forecast(new, series=["n"])
    assert (known.columns, unknown.columns) == (("b",), ("n",))
    # nlinear's bias alone tells scalings apart, and those are learnt of other rows.
    assert not np.array_equal(known.values, unknown.values)
    scaled_alike = pooled.forecast(new * 1000 + 5, series=["n"]).values
    assert scaled_alike == pytest.approx(unknown.values * 1000 + 5, rel=1e-4)


def test_a_series_that_was_not_in_the_training_has_to_be_named(pooled: Forecaster) -> None:
    new = frame_of(long(), ["a"]).rename(columns={"a": "n"})
    with pytest.raises(InvalidForecastInput, match=r"none of the series was in the training, which had a, b, c"):
        pooled.forecast(new)
    assert pooled.forecast(new.assign(a=1.0)).columns == ("a",)
    with pytest.raises(InvalidForecastInput, match="'n' was not in the training"):
        pooled.forecast(series=["n"])
    with pytest.raises(InvalidForecastInput, match="column 'x' is missing"):
        pooled.forecast(new, series=["x"])
    with pytest.raises(InvalidForecastInput, match="none of them twice"):
        pooled.forecast(series=["a", "a"])


def test_series_are_chosen_of_pooled_models_alone(with_sun: Forecaster) -> None:
    with pytest.raises(InvalidForecastInput, match="pooled"):
        with_sun.forecast(future=sunny(), series=["sales"])


def test_too_short_a_series_is_named(pooled: Forecaster) -> None:
    table = Table(long().times, long().values, long().columns, "D", (Part(0, 200), Part(20, 31), Part(80, 200)))
    with pytest.raises(InvalidForecastInput, match="of series 'b' are needed; 11 were given"):
        pooled.forecast(table)


def test_hundreds_of_series_are_forecast_together(pooled: Forecaster) -> None:
    recent = frame_of(long(), ["a"])
    many = pd.DataFrame({f"s{number}": recent["a"] + number for number in range(150)}, index=recent.index)
    forecast = pooled.forecast(many, series=list(many.columns))
    one = pooled.forecast(many[["s149"]], series=["s149"])
    assert forecast.values[:, 149] == pytest.approx(one.values[:, 0], rel=1e-5)


def test_pooled_json_has_null_where_there_is_no_forecast(pooled_path: Path, tmp_path: Path) -> None:
    answer = forecast_json(str(pooled_path), None)
    assert len(answer["timestamps"]) == 8
    assert [value is None for value in answer["values"]["a"]] == [True] * 4 + [False] * 4
    times, names = long().times, ("b", "n")
    rows = [f"{name},{time.date()},{time.day_of_year % 9}" for name in names for time in times[:60]]
    path = tmp_path / "long.csv"
    path.write_text("\n".join(["unique_id,ds,y", *rows]))
    assert forecast_json(str(pooled_path), None, path)["columns"] == ["b"]
    assert forecast_json(str(pooled_path), None, path, series=["n"])["columns"] == ["n"]
    with pytest.raises(InvalidForecastInput, match=r"column 'z' is missing.* have b, n"):
        forecast_json(str(pooled_path), None, path, series=["z"])


# --- missing values ---------------------------------------------------------------------------------


def test_masked_recent_values_may_be_missing(trained_on: Callable[..., Path]) -> None:
    forecaster = load_forecaster(trained_on(gappy(), missing="mask"))
    recent = frame_of(gappy())
    assert recent[-12:].isna().any().any()
    assert same(forecaster.forecast(), forecaster.forecast(recent))
    recent[-12:] = np.nan
    with pytest.raises(InvalidForecastInput, match="none of the last 12 values is known"):
        forecaster.forecast(recent)


def test_the_end_of_the_series_is_filled_where_it_reaches_before_the_test_part(trained_on: Callable[..., Path]) -> None:
    table = wide()
    table.values[171:173] = np.nan
    split = {"train": 150, "validation": 45, "test": 5}
    forecaster = load_forecaster(trained_on(table, missing="interpolate", split=split, input_len=40))
    assert np.isfinite(forecaster.forecast().values).all()


# --- resampling -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def daily(trained_on: Callable[..., Path]) -> Forecaster:
    return load_forecaster(trained_on(hourly(), resample="D"))


def test_recent_values_come_at_either_frequency(daily: Forecaster) -> None:
    assert (daily.header.frequency, daily.header.resampled_from) == ("D", "8h")
    by_day = frame_of(hourly()).resample("D").mean()[1:]
    expected = daily.forecast()
    assert expected.timestamps[0] == by_day.index[-1] + pd.Timedelta(days=1)
    assert same(daily.forecast(hourly()), expected)
    assert daily.forecast(by_day).values == pytest.approx(expected.values, rel=1e-5)


def test_a_begun_step_is_forecast_not_taken_for_a_whole_one(daily: Forecaster) -> None:
    begun = frame_of(hourly())[:-1]
    forecast = daily.forecast(begun)
    assert forecast.timestamps[0] == hourly().times[-1].normalize()
    assert same(forecast, daily.forecast(frame_of(hourly())[:-3]))


def test_recent_values_of_a_third_frequency_are_refused(daily: Forecaster) -> None:
    with pytest.raises(InvalidForecastInput, match="trained on D, made from 8h"):
        daily.forecast(frame_of(hourly())[::2])
    with pytest.raises(InvalidForecastInput, match="12 time steps of D of recent values are needed; 6 were given"):
        daily.forecast(frame_of(hourly())[-20:])


def test_the_future_is_resampled_with_the_recent_values(trained_on: Callable[..., Path]) -> None:
    forecaster = load_forecaster(trained_on(hourly(), NSTRANSFORMER, known_future=["b"], resample="D"))
    frame = frame_of(hourly())
    recent, future = frame[:-13], frame[["b"]][-13:]  # the recent values end within a day
    by_day = frame[["b"]].resample("D").mean()[-5:]
    forecast = forecaster.forecast(recent, future)
    whole_days = forecaster.forecast(frame.resample("D").mean()[1:-5], by_day)
    assert forecast.timestamps.equals(whole_days.timestamps)
    assert forecast.values == pytest.approx(whole_days.values, rel=1e-4)
    with pytest.raises(InvalidForecastInput, match="which is not one step of 8h"):
        forecaster.forecast(recent, future.drop(index=future.index[4]))
    with pytest.raises(InvalidForecastInput, match="column 'b' is missing at time step 3 of 4"):
        forecaster.forecast(recent, future[:4])
    after = pd.date_range(frame.index[-1], periods=13, freq="8h")[1:]
    from_the_end = pd.DataFrame({"b": np.arange(12.0)}, index=after)
    means = pd.DataFrame({"b": [1.0, 4.0, 7.0, 10.0]}, index=after[::3])
    assert forecaster.forecast(future=from_the_end).values == pytest.approx(
        forecaster.forecast(future=means).values, rel=1e-5
    )


def test_a_finer_frequency_is_refused_before_anything_is_read() -> None:
    fields = {"data": DATA | {"series": "joint", "resample": "h"}, "method": "dense"}
    with pytest.raises(InvalidSpec, match="no slower one"):
        list(Trainer(Spec.model_validate(fields), wide(), Path("nowhere")).run())
