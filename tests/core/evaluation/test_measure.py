"""Every number of an evaluation, computed again by numpy from all forecasts at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from torch import Tensor

from pals_core.checkpoint.calibration import Calibration
from pals_core.data.split import Part
from pals_core.data.table import Table
from pals_core.data.windows import Batch, SplitWindows, make_windows
from pals_core.evaluation import errors
from pals_core.evaluation.conformal import calibrate, half_widths
from pals_core.evaluation.document import ErrorFigures, Evaluation, ForecastErrors
from pals_core.evaluation.measure import measure
from pals_core.evaluation.origins import origins_of_test
from pals_core.evaluation.seasonal import SeasonalNaive, learn_season
from pals_core.spec import DataSpec

HORIZON = 4
SPLIT = {"train": 0.5, "validation": 0.3, "test": 0.2}
FIELDS: dict[str, Any] = {"input_len": 12, "label_len": 6, "horizon": HORIZON, "split": SPLIT}
Values = npt.NDArray[np.float64]


def repeat(batch: Batch) -> Tensor:
    """The last value, a little off."""
    return batch.x_enc[:, -1:].expand(-1, HORIZON, -1) + 0.05


def with_gaps(series: Table) -> Table:
    values = series.values.copy()
    values[np.random.default_rng(2).random(values.shape) < 0.3] = np.nan
    return Table(series.times, values, series.columns, series.frequency)


def ragged(series: Table) -> Table:
    """The three columns as series of 260, 200 and 160 steps."""
    spans = (Part(0, 260), Part(30, 230), Part(100, 260))
    values = series.values.copy()
    for place, span in enumerate(spans):
        values[: span.start, place] = values[span.stop :, place] = np.nan
    return Table(series.times, values, series.columns, series.frequency, spans)


class Case:
    """One table's test part, evaluated, and all that it takes to do it again: [windows, H, C] each."""

    def __init__(self, table: Table, **data: Any) -> None:
        self.windows: SplitWindows = make_windows(table, DataSpec.model_validate(FIELDS | data))
        self.season = learn_season(self.windows)
        calibration = calibrate(repeat, self.windows.validation)
        assert calibration is not None
        self.calibration: Calibration = calibration
        origins = origins_of_test(self.windows)
        self.measured = measure(repeat, origins, self.season, calibration)
        self.evaluation: Evaluation = self.measured.evaluation()

        test = self.windows.test
        everything = torch.arange(len(test))
        batch = test.batch(everything)
        self.target: Values = batch.target.double().numpy()
        self.said = {
            "forecaster": repeat(batch).double().numpy(),
            "naive": SeasonalNaive(test, origins.groups, self.season.length).forecast(everything).double().numpy(),
        }
        self.known = np.ones(self.target.shape, dtype=bool) if batch.known is None else batch.known.numpy()
        if test.series is None:
            self.column = np.broadcast_to(np.arange(self.target.shape[2]), self.target.shape)
        else:
            self.column = np.broadcast_to(test.series.numpy()[:, None, None], self.target.shape)
        self.step = np.broadcast_to(np.arange(HORIZON)[:, None], self.target.shape)
        self.std, self.mean = self.windows.scaler.std[self.column], self.windows.scaler.mean[self.column]
        self.width = {
            level: half_widths(calibration, HORIZON, level)[
                self.step, self.column if calibration.columns > 1 else 0 * self.column
            ]
            for level in (80.0, 95.0)
        }

    def expected(self, kind: str, chosen: npt.NDArray[np.bool_]) -> dict[str, float]:
        """The errors over the chosen cells of windows."""
        cells = chosen & self.known
        error = self.said[kind] - self.target
        said, target = (values * self.std + self.mean for values in (self.said[kind], self.target))
        found = {"scaled mse": np.mean(error[cells] ** 2), "scaled mae": np.mean(abs(error[cells]))}
        found["original mse"] = np.mean((said - target)[cells] ** 2)
        found["original mae"] = np.mean(abs(said - target)[cells])
        for units, one, other in (("scaled", self.said[kind], self.target), ("original", said, target)):
            found[f"{units} rmse"] = np.sqrt(found[f"{units} mse"])
            found[f"{units} smape"] = np.mean((200 * abs(one - other) / (abs(one) + abs(other)))[cells])
        found["mase"] = np.mean((abs(error) / self.season.errors[self.column])[cells])
        return {name: float(value) for name, value in found.items()}


def flat(figures: ErrorFigures[Any], *place: int) -> dict[str, float]:
    """The numbers at one place of lists of errors."""

    def at(numbers: Any) -> float:
        for index in place:
            numbers = numbers[index]
        return float(numbers)

    found = {f"{units} {name}": at(getattr(getattr(figures, units), name)) for units in UNITS for name in NAMES}
    return found | {"mase": at(figures.mase)}


UNITS, NAMES = ("scaled", "original"), ("mse", "mae", "rmse", "smape")


@pytest.fixture(scope="module", params=["joint", "masked", "pooled"])
def case(request: pytest.FixtureRequest, series: Table) -> Case:
    match request.param:
        case "joint":
            return Case(series)
        case "masked":
            return Case(with_gaps(series), missing="mask")
        case _:
            return Case(ragged(series), series="pooled")


@pytest.mark.parametrize("kind", ["forecaster", "naive"])
def test_every_error_is_the_mean_over_what_is_known(case: Case, kind: str) -> None:
    found: ForecastErrors = getattr(case.evaluation, kind)
    everything = np.ones(case.target.shape, dtype=bool)
    assert flat(found.overall) == pytest.approx(case.expected(kind, everything), rel=1e-6)
    for step in range(HORIZON):
        assert flat(found.by_step, step) == pytest.approx(case.expected(kind, case.step == step), rel=2e-6)
    assert found.by_column_and_step is not None
    for column in range(3):
        chosen = case.column == column
        assert flat(found.by_column, column) == pytest.approx(case.expected(kind, chosen), rel=2e-6)
        for step in range(HORIZON):
            expected = case.expected(kind, chosen & (case.step == step))
            assert flat(found.by_column_and_step, column, step) == pytest.approx(expected, rel=2e-6)


def test_coverage_is_the_share_of_known_values_inside(case: Case) -> None:
    evaluation = case.evaluation
    assert [interval.level for interval in evaluation.intervals] == [80.0, 95.0]
    residual = abs(case.said["forecaster"] - case.target)
    for interval in evaluation.intervals:
        inside = residual <= case.width[interval.level]
        assert interval.coverage == pytest.approx(100 * inside[case.known].mean())
        assert 60 < interval.coverage < 100
        for step in range(HORIZON):
            share = inside[case.known & (case.step == step)].mean()
            assert interval.by_step[step] == pytest.approx(100 * share, rel=1e-6)
        for column in range(3):
            chosen = case.known & (case.column == column)
            assert interval.by_column[column] == pytest.approx(100 * inside[chosen].mean(), rel=1e-6)
            width = (2 * case.width[interval.level] * case.std)[chosen].mean()
            assert interval.mean_width_by_column[column] == pytest.approx(width, rel=1e-6)


def test_the_worst_the_median_and_the_best_window_are_carried_in_the_datas_units(case: Case, series: Table) -> None:
    squared = np.where(case.known, (case.said["forecaster"] - case.target) ** 2, 0)
    by_window = squared.sum(axis=(1, 2)) / case.known.sum(axis=(1, 2))
    order = np.argsort(by_window)
    indices = {"worst": order[-1], "median": order[len(order) // 2], "best": order[0]}
    assert [sample.rank for sample in case.evaluation.samples] == ["worst", "median", "best"]
    for sample in case.evaluation.samples:
        window = int(indices[sample.rank])
        assert sample.mse == pytest.approx(by_window[window])
        first = series.times.get_loc(sample.timestamps[0])
        assert list(sample.timestamps) == [time.isoformat() for time in series.times[first : first + HORIZON]]
        assert list(sample.history_timestamps) == [time.isoformat() for time in series.times[first - 8 : first]]
        assert (sample.series is None) is (case.windows.test.series is None)
        for place, name in enumerate(sample.columns):
            known = case.known[window, :, place]
            values = series.values[:, series.columns.index(name)]
            assert [value is not None for value in sample.actual[name]] == known.tolist()
            seen = np.array([np.nan if value is None else value for value in sample.actual[name]])
            assert seen[known] == pytest.approx(values[first : first + HORIZON][known], rel=1e-5)
            history = np.array([np.nan if value is None else value for value in sample.history[name]])
            assert history[~np.isnan(history)] == pytest.approx(values[first - 8 : first][~np.isnan(history)], rel=1e-5)
            std, mean = case.std[window, 0, place], case.mean[window, 0, place]
            for said, shown in (("forecaster", sample.forecast), ("naive", sample.naive)):
                assert shown[name] == pytest.approx(case.said[said][window, :, place] * std + mean, rel=1e-6)
            for interval in sample.intervals:
                half = case.width[interval.level][window, :, place] * std
                lower, upper = np.array(interval.lower[name]), np.array(interval.upper[name])
                assert (upper - lower) / 2 == pytest.approx(half, rel=1e-4)
                assert (upper + lower) / 2 == pytest.approx(np.array(sample.forecast[name]), rel=1e-5)


def test_it_says_what_was_compared(case: Case, series: Table) -> None:
    evaluation = case.evaluation
    assert evaluation.columns == series.columns
    assert (evaluation.frequency, evaluation.horizon, evaluation.stride, evaluation.season) == ("D", HORIZON, 1, 7)
    assert evaluation.windows == len(case.windows.test)
    assert evaluation.last_step == series.times[-1].isoformat()
    assert evaluation.calibration_residuals == case.calibration.residuals
    assert Evaluation.model_validate_json(evaluation.model_dump_json()) == evaluation
    overall = evaluation.forecaster.overall
    metrics = evaluation.metrics
    assert (metrics.mse, metrics.mae) == (overall.scaled.mse, overall.scaled.mae)
    assert (metrics.original.mse, metrics.original.mae) == (overall.original.mse, overall.original.mae)


def test_of_very_many_cells_only_the_margins_are_told(series: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "MAX_CELLS", 3 * HORIZON - 1)
    evaluation = Case(series).evaluation
    assert evaluation.forecaster.by_column_and_step is None
    assert len(evaluation.forecaster.by_step.scaled.mse) == HORIZON


def test_what_cannot_be_told_is_null(series: Table) -> None:
    values = series.values.copy()
    values[:, 0] = np.tile(np.arange(7.0), 40)[:260]
    values[208:, 1] = np.nan
    evaluation = Case(Table(series.times, values, series.columns, "D"), missing="mask").evaluation
    by_column = evaluation.forecaster.by_column
    assert by_column.mase is not None
    assert by_column.mase[0] is None, "a week that repeats itself exactly has nothing to divide by"
    assert by_column.mase[1] is by_column.scaled.mse[1] is None, "nothing of it is known in the test part"
    assert evaluation.intervals[0].by_column[1] is None
    assert evaluation.forecaster.overall.mase == pytest.approx(by_column.mase[2])


def test_without_a_calibration_there_are_no_intervals(series: Table) -> None:
    windows = make_windows(series, DataSpec.model_validate(FIELDS))
    evaluation = measure(repeat, origins_of_test(windows), learn_season(windows), None).evaluation()
    assert evaluation.intervals == ()
    assert evaluation.calibration_residuals is None
    assert all(sample.intervals == () for sample in evaluation.samples)


def test_forecasts_that_are_not_finite_have_an_error_that_is_not() -> None:
    steps = np.arange(100.0)
    times = pd.date_range("2021-01-01", periods=100, freq="D").as_unit("us")
    table = Table(times, steps[:, None] % 9, ("a",), "D")
    windows = make_windows(table, DataSpec.model_validate(FIELDS))
    origins = origins_of_test(windows)
    measured = measure(lambda batch: batch.target / 0, origins, learn_season(windows), None)
    assert not np.isfinite(measured.mse)
