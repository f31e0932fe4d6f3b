"""One pass over windows: how far off a forecaster is, beside the seasonal naive forecast of the same windows.

Every window counts once, or, with missing values, every known target. Sums by step and column are kept, and the squared
error of each window, never the forecasts, so that memory does not grow with the windows.

Shapes: B batch, N rows, H horizon, C columns of a window, E columns, or pooled series, whose errors are told apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pals_core.checkpoint.calibration import Calibration
from pals_core.data.windows import Batch
from pals_core.evaluation.conformal import DEFAULT_LEVELS, half_widths
from pals_core.evaluation.document import Evaluation, IntervalCoverage
from pals_core.evaluation.errors import CellSums, Means, Units, add_counts, add_errors, known_numbers
from pals_core.evaluation.origins import Origins
from pals_core.evaluation.samples import draw_samples
from pals_core.evaluation.seasonal import Season, SeasonalNaive

Forecast = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Measurement:
    """What one pass has found."""

    origins: Origins
    season: Season
    calibration: Calibration | None
    means: Means
    widths: dict[float, npt.NDArray[np.float64]]  # by level, half of each interval, [H, E] or [H, 1]
    window_errors: npt.NDArray[np.float64]  # mean squared error of each window, in scaled units
    forecast: Forecast
    naive: SeasonalNaive

    @property
    def mse(self) -> float:
        """Mean squared error over all that is known, in scaled units; it may not be finite."""
        return float(self.means.mean(self.means.sums.of("forecaster squared"), (0, 1)))

    def evaluation(self) -> Evaluation:
        """Return the document; the errors are finite."""
        origins, windows = self.origins, self.origins.windows
        first = (windows.starts + windows.lengths.input_len).cpu().numpy()
        times = origins.times
        return Evaluation(
            columns=origins.columns,
            frequency=origins.frequency,
            horizon=windows.lengths.horizon,
            windows=len(windows),
            stride=origins.stride,
            first_step=times[first].min().isoformat(),
            last_step=times[first + windows.lengths.horizon - 1].max().isoformat(),
            season=self.season.length,
            forecaster=self.means.errors("forecaster"),
            naive=self.means.errors("naive"),
            calibration_residuals=None if self.calibration is None else self.calibration.residuals,
            intervals=tuple(self._coverage(level) for level in self.widths),
            samples=draw_samples(origins, self.forecast, self.naive, self.window_errors, self.widths),
        )

    def _coverage(self, level: float) -> IntervalCoverage:
        inside = 100 * self.means.sums.of(_inside(level))
        width = 2 * self.widths[level] * self.origins.scaler.std
        counted = self.means.sums.of("count") * width
        return IntervalCoverage(
            level=level,
            coverage=float(self.means.mean(inside, (0, 1))),
            by_step=known_numbers(self.means.mean(inside, (1,))),
            by_column=known_numbers(self.means.mean(inside, (0,))),
            mean_width_by_column=known_numbers(self.means.mean(counted, (0,))),
        )


@torch.inference_mode()
def measure(forecast: Forecast, origins: Origins, season: Season, calibration: Calibration | None) -> Measurement:
    """Compare the forecasts of a network in evaluation mode, [B, H, C] in scaled units, with what came."""
    windows = origins.windows
    naive = SeasonalNaive(windows, origins.groups, season.length)
    units, sums = Units(windows, origins.scaler), CellSums(windows)
    widths = default_widths(calibration, windows.lengths.horizon)
    by_level = {level: torch.tensor(width, device=windows.values.device) for level, width in widths.items()}
    window_errors = []
    for indices in windows.in_batches(torch.arange(len(windows), device=windows.values.device)):
        batch = windows.batch(indices)
        said, target, known = forecast(batch), batch.target, batch.known
        squared = add_errors(sums, "forecaster", said, target, known, indices, units)
        add_errors(sums, "naive", naive.forecast(indices), target, known, indices, units)
        window_errors.append(squared / add_counts(sums, target, known, indices))
        residual = (said - target).abs().double()
        for level, width in by_level.items():
            inside = residual <= width
            sums.add(_inside(level), (inside if known is None else inside & known).double(), indices)
    return Measurement(
        origins,
        season,
        calibration,
        Means(sums, origins.scaler.std, season.errors),
        widths,
        torch.cat(window_errors).cpu().numpy(),
        forecast,
        naive,
    )


def default_widths(calibration: Calibration | None, horizon: int) -> dict[float, npt.NDArray[np.float64]]:
    """Return half the width of the intervals, [H, E] in scaled units, of each default level that there is."""
    if calibration is None:
        return {}
    return {
        level: half_widths(calibration, horizon, level)
        for level in DEFAULT_LEVELS
        if level <= calibration.highest_level
    }


def _inside(level: float) -> str:
    return f"inside {level:g}"
