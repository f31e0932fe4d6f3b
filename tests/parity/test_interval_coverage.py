"""Prediction intervals on the real series cover what they promise, as far as validation and test part are alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pals_core.training.train import Trained, train

HOURLY = {"train": 8640, "validation": 2880, "test": 2880}


@pytest.fixture(scope="module")
def etth1(series_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    spec = {
        "data": {"input_len": 96, "label_len": 48, "horizon": 96, "split": HOURLY},
        "model": "dlinear",
        "training": {"epochs": 1, "device": "cpu", "learning_rate": 1e-3},
    }
    return train(spec, series_dir / "ETTh1.csv", tmp_path_factory.mktemp("etth1"))


def test_80_per_cent_intervals_of_etth1_cover_75_to_90_per_cent(etth1: Trained) -> None:
    evaluation = etth1.evaluation
    assert evaluation.calibration_residuals == 2785
    coverage = {interval.level: interval.coverage for interval in evaluation.intervals}
    assert 75 <= coverage[80.0] <= 90
    assert 90 <= coverage[95.0] <= 100


def test_yesterday_repeated_is_beaten(etth1: Trained, series_dir: Path) -> None:
    values = pd.read_csv(series_dir / "ETTh1.csv", index_col="date").to_numpy()[:14400]
    scaled = (values - values[:8640].mean(axis=0)) / values[:8640].std(axis=0)
    errors = [
        np.tile(scaled[origin - 24 : origin], (4, 1)) - scaled[origin : origin + 96]
        for origin in range(11520, 14400 - 95)
    ]
    evaluation = etth1.evaluation
    assert evaluation.season == 24
    assert evaluation.naive.overall.scaled.mse == pytest.approx(np.square(errors).mean(), rel=1e-5)
    assert evaluation.naive.overall.scaled.mae == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    assert evaluation.forecaster.overall.scaled.mse < evaluation.naive.overall.scaled.mse


def test_the_74_overlapping_windows_of_illness_are_reported_as_they_are(series_dir: Path, tmp_path: Path) -> None:
    spec = {
        "data": {"input_len": 36, "label_len": 18, "horizon": 24},
        "model": "nlinear",
        "training": {"epochs": 2, "device": "cpu", "learning_rate": 1e-2},
    }
    evaluation = train(spec, series_dir / "national_illness.csv", tmp_path).evaluation
    assert (evaluation.windows, evaluation.calibration_residuals, evaluation.season) == (170, 74, 52)
    assert [interval.level for interval in evaluation.intervals] == [80.0, 95.0]
    narrow, wide = evaluation.intervals
    assert 0 < narrow.coverage < wide.coverage <= 100
    assert all(0 <= share <= 100 for share in narrow.by_step if share is not None)
