from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pals_core.data.split import Part
from pals_core.data.table import Table
from pals_core.data.windows import make_windows
from pals_core.evaluation.origins import origins_of_test
from pals_core.evaluation.seasonal import SeasonalNaive, learn_season, season_length
from pals_core.spec import DataSpec


@pytest.mark.parametrize(
    ("frequency", "steps"),
    [
        ("h", 24),
        ("2h", 12),
        ("7h", 24),
        ("15min", 96),
        ("s", 86_400),
        ("10ms", 8_640_000),
        ("D", 7),
        ("2D", 7),
        ("24h", 7),
        ("1440min", 7),
        ("36h", 2),
        ("7D", 52),
        ("168h", 52),
        ("14D", 26),
        ("30D", 12),
        ("400D", 1),
        ("B", 5),
        ("W-SAT", 52),
        ("2W-SUN", 26),
        ("MS", 12),
        ("BME", 12),
        ("QE-MAR", 4),
        ("YS-JAN", 1),
    ],
)
def test_a_season_is_the_shortest_whole_number_of_steps(frequency: str, steps: int) -> None:
    assert season_length(frequency) == steps


def table_of(values: np.ndarray, frequency: str, spans: tuple[Part, ...] = ()) -> Table:
    times = pd.date_range("2020-01-05", periods=len(values), freq=frequency).as_unit("us")
    return Table(times, values, tuple(f"c{column}" for column in range(values.shape[1])), frequency, spans)


def last_season(values: np.ndarray, origin: int, season: int, horizon: int) -> np.ndarray:
    return np.stack([values[origin - season + ahead % season] for ahead in range(horizon)])


def test_it_repeats_the_last_known_season_and_looks_beyond_a_models_input() -> None:
    values = np.random.default_rng(1).normal(size=(100, 2))
    table, data = table_of(values, "D"), DataSpec(input_len=3, label_len=1, horizon=10)
    windows = make_windows(table, data)
    scaled = windows.scaler.scale(values)
    # The last 20 rows are the test part: 11 forecasts of 10 steps.
    expected = np.stack([last_season(scaled, origin, 7, 10) for origin in range(80, 91)])
    naive = SeasonalNaive(windows.test, origins_of_test(windows).groups, 7).forecast(torch.arange(11))
    assert naive.numpy() == pytest.approx(expected, rel=1e-5)


def test_a_season_longer_than_the_training_part_gives_way_to_the_last_value() -> None:
    windows = make_windows(table_of(np.arange(60.0)[:, None], "W-SUN"), DataSpec(input_len=2, label_len=1, horizon=2))
    assert learn_season(windows).length == 1
    naive = SeasonalNaive(windows.test, origins_of_test(windows).groups, 1).forecast(torch.arange(2))
    last_known = windows.scaler.scale(np.array([[47.0], [48.0]]))
    assert naive[:, :, 0].numpy() == pytest.approx(np.repeat(last_known, 2, axis=1), rel=1e-6)


def test_its_error_over_the_training_part_is_what_mase_divides_by() -> None:
    values = np.random.default_rng(2).normal(size=(100, 3)).cumsum(axis=0)
    values[:, 2] = np.tile([1.0, 2, 3, 4, 5, 6, 7], 15)[:100]
    windows = make_windows(table_of(values, "D"), DataSpec(input_len=7, label_len=1, horizon=3))
    season = learn_season(windows)
    train = windows.scaler.scale(values[:70])
    assert season.errors[:2] == pytest.approx(np.abs(train[7:] - train[:-7]).mean(axis=0)[:2], rel=1e-5)
    assert np.isnan(season.errors[2]), "a week that repeats itself exactly has no error to divide by"


def test_where_a_value_is_missing_the_season_before_has_it() -> None:
    values = np.random.default_rng(3).normal(size=(100, 2))
    values[75, 0] = values[[68, 61], 1] = np.nan
    values[[5, 12, 19, 26, 33, 40, 47, 54], 1] = np.nan  # nothing is known of this day before the one after next
    values[[61, 68, 75, 82, 89, 96], 1] = np.nan
    data = DataSpec.model_validate({"input_len": 7, "label_len": 1, "horizon": 7, "missing": "mask"})
    windows = make_windows(table_of(values, "D"), data)
    scaled = windows.scaler.scale(values)
    naive = SeasonalNaive(windows.test, origins_of_test(windows).groups, 7).forecast(torch.tensor([0])).numpy()[0]
    assert naive[2, 0] == pytest.approx(scaled[68, 0], rel=1e-5), "of the Friday before the one that is missing"
    assert naive[2, 1] == 0, "the mean of the training part, since no such day is known"
    assert naive[0] == pytest.approx(scaled[73], rel=1e-5)

    train = scaled[:70]
    assert learn_season(windows).errors == pytest.approx(np.nanmean(np.abs(train[7:] - train[:-7]), axis=0), rel=1e-5)


def test_pooled_series_look_back_into_their_own_past() -> None:
    values = np.random.default_rng(4).normal(size=(120, 2))
    values[:40, 1] = np.nan
    table = table_of(values, "D", (Part(0, 120), Part(40, 120)))
    split = {"train": 0.6, "validation": 0.2, "test": 0.2}
    data = DataSpec.model_validate({"input_len": 5, "label_len": 1, "horizon": 9, "series": "pooled", "split": split})
    windows = make_windows(table, data)
    season = learn_season(windows)
    test = windows.test
    assert test.series is not None
    naive = SeasonalNaive(test, origins_of_test(windows).groups, season.length)
    for series, (first, length) in enumerate([(0, 120), (40, 80)]):
        scaled = (values[first:, series] - windows.scaler.mean[series]) / windows.scaler.std[series]
        begins = length - length // 5
        windows_of_series = torch.nonzero(test.series == series)[:, 0]
        assert len(windows_of_series) == length // 5 - 8
        for place, index in enumerate(windows_of_series):
            expected = last_season(scaled, begins + place, 7, 9)
            assert naive.forecast(index[None])[0, :, 0].numpy() == pytest.approx(expected, rel=1e-5)
        train = scaled[: int(length * 0.6)]
        assert season.errors[series] == pytest.approx(np.abs(train[7:] - train[:-7]).mean(), rel=1e-5)
