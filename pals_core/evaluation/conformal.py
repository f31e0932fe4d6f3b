"""Split-conformal prediction intervals: as wide as the residuals of the validation part say (arXiv 1604.04173).

Shapes: B batch, H horizon, C columns of a window, Q levels, E columns that have quantiles of their own, R residuals.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pals_core.checkpoint.calibration import Calibration
from pals_core.data.windows import Batch, WindowSet

DEFAULT_LEVELS = (80.0, 95.0)
# What is kept; a level in between is interpolated.
_LEVELS = (50.0, 65.0, 80.0, 90.0, 95.0, 99.0)
# So many residuals are at hand at once, 4 bytes each; of more, evenly spread windows are taken.
_MAX_RESIDUALS = 16_000_000
# Beyond so many steps of columns, the columns share a quantile per step, so that a checkpoint's header stays small.
_MAX_CELLS = 100_000
# Half precision reaches to 65,504.
_LARGEST = 2.0**15
# The product of a level and a count is a whole number now and then, but for its rounding.
_ROUNDING = 1e-9


@torch.inference_mode()
def calibrate(forecast: Callable[[Batch], Tensor], windows: WindowSet) -> Calibration | None:
    """Return how far off the forecasts of validation windows are, by horizon step and column.

    Pooled series share their quantiles, in scaled units, and so do more columns than a header can tell apart or columns
    of which nothing is known at a step. None when at a step no residual is known or one is not finite.
    """
    columns, horizon = windows.values.shape[1], windows.lengths.horizon
    count = max(1, min(len(windows), _MAX_RESIDUALS // (horizon * columns)))
    chosen = torch.arange(count, device=windows.values.device) * len(windows) // count
    residuals = np.empty((horizon, columns, count), dtype=np.float32)
    first = 0
    for chunk in windows.in_batches(chosen):
        batch = windows.batch(chunk)
        residual = (forecast(batch) - batch.target).abs()
        if batch.known is not None:
            residual = residual.masked_fill(~batch.known, torch.nan)
        residuals[:, :, first : first + len(chunk)] = residual.permute(1, 2, 0).cpu().numpy()
        first += len(chunk)
    if np.isinf(residuals).any() or (windows.counted is None and np.isnan(residuals).any()):
        return None
    if horizon * columns > _MAX_CELLS or np.isnan(residuals).all(axis=2).any():
        residuals = residuals.reshape(horizon, 1, columns * count)
    counts = np.count_nonzero(~np.isnan(residuals), axis=2)
    return None if counts.min() == 0 else _quantiles(residuals, counts)


def half_widths(calibration: Calibration, horizon: int, level: float) -> npt.NDArray[np.float64]:
    """Return half the width of the intervals of a level in per cent, [H, E] in scaled units.

    Between two levels that are kept it is interpolated, which errs towards too wide where large residuals are rarer
    than small ones. Raises ValueError for a level that the residuals do not allow.
    """
    if not 0 < level <= calibration.highest_level:
        raise ValueError(f"there is no interval of level {level:g}; the highest is {calibration.highest_level:g}")
    kept = np.array(calibration.numbers()).reshape(len(calibration.levels), horizon, calibration.columns)
    levels = np.array((0.0, *calibration.levels))
    kept = np.concatenate((np.zeros_like(kept[:1]), kept))
    above = int(np.searchsorted(levels, level))
    share = (level - levels[above - 1]) / (levels[above] - levels[above - 1])
    widths: npt.NDArray[np.float64] = kept[above - 1] + share * (kept[above] - kept[above - 1])
    return widths


def _quantiles(residuals: npt.NDArray[np.float32], counts: npt.NDArray[np.intp]) -> Calibration:
    """Return the quantiles of residuals, [H, E, R] with NaN where unknown, of which [H, E] `counts` are known."""
    fewest = int(counts.min())
    highest = 100 * fewest / (fewest + 1)
    levels = (*(level for level in _LEVELS if level < highest), highest)
    residuals.sort(axis=2)  # NaN last
    ranks = [np.ceil((counts + 1) * level / 100 - _ROUNDING).astype(np.intp) for level in levels]
    quantiles = np.stack([np.take_along_axis(residuals, rank[:, :, None] - 1, axis=2)[:, :, 0] for rank in ranks])
    unit, halves = _rounded_up(quantiles.astype(np.float64))
    return Calibration(
        residuals=fewest,
        levels=levels,
        columns=quantiles.shape[2],
        unit=unit,
        quantiles=base64.b64encode(halves.astype("<f2").tobytes()).decode(),
    )


def _rounded_up(numbers: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float16]]:
    """Return a power of two, and half-precision multiples of it, none of them below the number it stands for."""
    largest = float(numbers.max())
    unit = 2.0 ** math.ceil(math.log2(largest / _LARGEST)) if largest > 0 else 1.0
    multiples = numbers / unit
    halves = multiples.astype(np.float16)
    return unit, np.where(halves < multiples, np.nextafter(halves, np.float16(np.inf)), halves)
