"""The worst, the median and the best window of an evaluation, to be looked at.

Shapes: L input_len, H horizon, C columns of a window, E columns, or pooled series.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from pals_core.data.scaling import Scaler
from pals_core.data.windows import Batch, WindowSet
from pals_core.evaluation.document import Series, WindowInterval, WindowSample
from pals_core.evaluation.errors import known_numbers
from pals_core.evaluation.origins import Origins
from pals_core.evaluation.seasonal import SeasonalNaive

MAX_COLUMNS = 8
# History is shown for as many horizons at most.
HISTORY_HORIZONS = 2

Rows = npt.NDArray[np.float64]


@torch.inference_mode()
def draw_samples(
    origins: Origins,
    forecast: Callable[[Batch], Tensor],
    naive: SeasonalNaive,
    errors: npt.NDArray[np.float64],
    widths: Mapping[float, Rows],
) -> tuple[WindowSample, ...]:
    """Return the windows of the largest, the middle and the smallest of the `errors`, one for each window.

    `widths` are half the widths of the intervals by level, [H, E] or [H, 1] in scaled units.
    """
    windows, times, scaler, columns = origins.windows, origins.times, origins.scaler, origins.columns
    order = np.argsort(errors, kind="stable")
    ranks: tuple[tuple[Literal["worst", "median", "best"], int], ...] = (
        ("worst", int(order[-1])),
        ("median", int(order[len(order) // 2])),
        ("best", int(order[0])),
    )
    indices = torch.tensor([index for _, index in ranks], device=windows.values.device)
    batch = windows.batch(indices)
    said, naively = forecast(batch).double().cpu().numpy(), naive.forecast(indices).double().cpu().numpy()
    lengths = windows.lengths
    samples = []
    for place, (rank, index) in enumerate(ranks):
        series = None if windows.series is None else int(windows.series[index])
        of_columns = slice(series, series + 1) if series is not None else slice(0, MAX_COLUMNS)
        units, names = Scaler(scaler.mean[of_columns], scaler.std[of_columns]), columns[of_columns]
        shown = slice(0, len(names))
        start = int(windows.starts[index])
        horizon = slice(start + lengths.input_len, start + lengths.input_len + lengths.horizon)
        shown_steps = min(lengths.input_len, HISTORY_HORIZONS * lengths.horizon)
        history = slice(horizon.start - shown_steps, horizon.start)
        ahead = said[place][:, shown]
        halves = {
            level: np.broadcast_to(width[:, of_columns] if width.shape[1] == len(columns) else width, ahead.shape)
            for level, width in widths.items()
        }
        samples.append(
            WindowSample(
                rank=rank,
                mse=float(errors[index]),
                series=None if series is None else names[0],
                columns=names,
                history_timestamps=_iso(times[history]),
                history=_named(names, units.unscale(_rows(windows, history)[:, shown])),
                timestamps=_iso(times[horizon]),
                actual=_named(names, units.unscale(_rows(windows, horizon)[:, shown])),
                forecast=_named(names, units.unscale(ahead)),
                naive=_named(names, units.unscale(naively[place][:, shown])),
                intervals=tuple(
                    WindowInterval(
                        level=level,
                        lower=_named(names, units.unscale(ahead - half)),
                        upper=_named(names, units.unscale(ahead + half)),
                    )
                    for level, half in halves.items()
                ),
            )
        )
    return tuple(samples)


def _rows(windows: WindowSet, rows: slice) -> Rows:
    """Return rows of the windows' values, NaN where one is missing."""
    values: Rows = windows.values[rows].double().cpu().numpy()
    return values if windows.known is None else np.where(windows.known[rows].cpu().numpy(), values, np.nan)


def _named(names: tuple[str, ...], values: Rows) -> dict[str, Series]:
    return {name: known_numbers(values[:, place]) for place, name in enumerate(names)}


def _iso(times: pd.DatetimeIndex) -> tuple[str, ...]:
    return tuple(time.isoformat() for time in times)
