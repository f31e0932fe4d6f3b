"""Intervals are made of order statistics, which numpy finds as well."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from pals_core.checkpoint.calibration import Calibration
from pals_core.data.split import Part
from pals_core.data.table import Table
from pals_core.data.windows import Batch, SplitWindows, make_windows
from pals_core.evaluation import conformal
from pals_core.evaluation.conformal import calibrate, half_widths
from pals_core.spec import DataSpec

HORIZON = 4


def zero(batch: Batch) -> Tensor:
    return torch.zeros_like(batch.target)


def windows_of(
    validation: int, columns: int = 2, *, share_missing: float = 0.0, spans: tuple[Part, ...] = (), **data: object
) -> SplitWindows:
    """A table of which so many windows are of the validation part."""
    rows = validation + HORIZON - 1
    generator = np.random.default_rng(7)
    values = generator.standard_t(3, size=(100 + rows + 20, columns)) * (1 + np.arange(columns))
    values[generator.random(values.shape) < share_missing] = np.nan
    times = pd.date_range("2020-01-01", periods=len(values), freq="D").as_unit("us")
    table = Table(times, values, tuple(f"c{column}" for column in range(columns)), "D", spans)
    split = {"train": 100, "validation": rows, "test": 20}
    fields = {"input_len": 6, "label_len": 3, "horizon": HORIZON, "split": split} | data
    return make_windows(table, DataSpec.model_validate(fields))


def residuals_of(windows: SplitWindows) -> np.ndarray:
    """Of forecasts that are all zero: what came, [windows, H, C], NaN where it is unknown."""
    batch = windows.validation.batch(torch.arange(len(windows.validation)))
    known = torch.ones_like(batch.target, dtype=torch.bool) if batch.known is None else batch.known
    return np.where(known.numpy(), batch.target.abs().numpy(), np.nan)


def order_statistic(residuals: np.ndarray, level: float) -> float:
    known = np.sort(residuals[~np.isnan(residuals)])
    return float(known[math.ceil((len(known) + 1) * level / 100 - 1e-9) - 1])


def calibrated(windows: SplitWindows) -> Calibration:
    calibration = calibrate(zero, windows.validation)
    assert calibration is not None
    calibration.check(HORIZON, windows.validation.values.shape[1])
    return calibration


@pytest.mark.parametrize("level", [50, 80, 90, 95])
def test_a_width_is_the_order_statistic_with_the_finite_sample_correction(level: float) -> None:
    windows = windows_of(74)
    calibration = calibrated(windows)
    assert calibration.residuals == 74
    widths, residuals = half_widths(calibration, HORIZON, level), residuals_of(windows)
    for step in range(HORIZON):
        for column in range(2):
            expected = order_statistic(residuals[:, step, column], level)
            # Rounded up to half precision.
            assert expected <= widths[step, column] <= expected * 1.001


def test_what_so_many_residuals_allow_is_the_largest_of_them() -> None:
    windows = windows_of(74)
    calibration = calibrated(windows)
    assert calibration.highest_level == 100 * 74 / 75
    largest = residuals_of(windows).max(axis=0)
    assert half_widths(calibration, HORIZON, calibration.highest_level) == pytest.approx(largest, rel=1e-3)
    with pytest.raises(ValueError, match=r"highest is 98\.6667"):
        half_widths(calibration, HORIZON, 99)


@pytest.mark.parametrize(
    ("count", "levels"), [(1, (50.0,)), (4, (50.0, 65.0, 80.0)), (19, (50.0, 65.0, 80.0, 90.0, 95.0))]
)
def test_few_windows_have_few_levels(count: int, levels: tuple[float, ...]) -> None:
    assert calibrated(windows_of(count)).levels == pytest.approx(levels)


def test_levels_in_between_are_interpolated_and_wider_than_their_order_statistic() -> None:
    windows = windows_of(2000, columns=1)
    calibration, residuals = calibrated(windows), residuals_of(windows)
    last = np.zeros((HORIZON, 1))
    for level in (1, 30, 50, 58, 65, 72, 80, 85, 90, 93, 95, 98, 99, 99.9):
        width = half_widths(calibration, HORIZON, level)
        assert (width > last).all()
        last = width
    for level in (58, 72, 85, 93, 97):
        wanted = np.array([order_statistic(residuals[:, step, 0], level) for step in range(HORIZON)])
        width = half_widths(calibration, HORIZON, level)[:, 0]
        assert (width >= wanted * 0.98).all()
        assert (width <= wanted * 1.25).all()


def test_missing_targets_are_no_residuals() -> None:
    windows = windows_of(60, share_missing=0.3, missing="mask")
    calibration, residuals = calibrated(windows), residuals_of(windows)
    known = (~np.isnan(residuals)).sum(axis=0)
    assert len(set(known.ravel().tolist())) > 1
    assert calibration.residuals == known.min() < len(residuals)
    widths = half_widths(calibration, HORIZON, 80)
    expected = [[order_statistic(residuals[:, step, column], 80) for column in range(2)] for step in range(HORIZON)]
    assert widths == pytest.approx(np.array(expected), rel=1e-3)


def test_a_column_of_which_nothing_is_known_shares_the_quantiles_of_the_others() -> None:
    windows = windows_of(60, missing="mask")
    known = torch.ones_like(windows.validation.values, dtype=torch.bool)
    known[100:, 1] = False
    validation = replace(windows.validation, known=known)
    calibration = calibrate(zero, validation)
    assert calibration is not None
    assert (calibration.columns, calibration.residuals) == (1, 60)
    residuals = residuals_of(windows)[:, :, 0]
    assert half_widths(calibration, HORIZON, 90)[0, 0] == pytest.approx(order_statistic(residuals[:, 0], 90), rel=1e-3)
    assert calibrate(zero, replace(validation, known=torch.zeros_like(known))) is None


def test_pooled_series_share_quantiles_in_scaled_units() -> None:
    rows = 100 + 40 + 3 + 20
    windows = windows_of(40, columns=3, series="pooled", spans=(Part(0, rows),) * 3)
    calibration = calibrated(windows)
    assert (calibration.columns, calibration.residuals) == (1, 120)
    residuals = residuals_of(windows)[:, :, 0]
    expected = [[order_statistic(residuals[:, step], 95)] for step in range(HORIZON)]
    assert half_widths(calibration, HORIZON, 95) == pytest.approx(np.array(expected), rel=1e-3)


def test_more_columns_than_a_header_can_tell_apart_share_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformal, "_MAX_CELLS", 7)
    windows = windows_of(40)
    calibration, residuals = calibrated(windows), residuals_of(windows)
    assert (calibration.columns, calibration.residuals) == (1, 80)
    expected = [[order_statistic(residuals[:, step], 80)] for step in range(HORIZON)]
    assert half_widths(calibration, HORIZON, 80) == pytest.approx(np.array(expected), rel=1e-3)


def test_of_more_residuals_than_fit_evenly_spread_windows_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformal, "_MAX_RESIDUALS", 8 * 25)
    windows = windows_of(100)
    calibration, residuals = calibrated(windows), residuals_of(windows)[::4]
    assert calibration.residuals == 25
    assert half_widths(calibration, HORIZON, 80)[2, 1] == pytest.approx(
        order_statistic(residuals[:, 2, 1], 80), rel=1e-3
    )


@pytest.mark.parametrize("said", [math.inf, math.nan])
def test_forecasts_that_are_no_numbers_calibrate_nothing(said: float) -> None:
    assert calibrate(lambda batch: torch.full_like(batch.target, said), windows_of(10).validation) is None


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-3, 1.0, 1e6, 1e30])
def test_residuals_of_any_size_keep_their_precision(scale: float) -> None:
    windows = windows_of(30).validation
    calibration = calibrate(
        lambda batch: batch.target + scale, replace(windows, values=torch.zeros_like(windows.values))
    )
    assert calibration is not None
    calibration.check(HORIZON, 2)
    widths = half_widths(calibration, HORIZON, 80)
    assert (widths >= np.float32(scale)).all()
    assert widths == pytest.approx(np.full((HORIZON, 2), scale), rel=1e-3, abs=0)
