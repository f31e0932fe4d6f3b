"""Rolling-origin backtests: how a trained network would have done, had it forecast every so many steps.

Shapes: C columns of a window, E columns, or pooled series.
"""

from __future__ import annotations

from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pals_core.checkpoint.file import read_checkpoint
from pals_core.data.groups import grouped
from pals_core.data.lengths import window_lengths
from pals_core.data.rolling import rolling_windows
from pals_core.data.scaling import joined
from pals_core.data.table import Table
from pals_core.data.windows import Batch, windows_at_once
from pals_core.errors import InvalidSpec, InvalidTable
from pals_core.evaluation.document import Evaluation
from pals_core.evaluation.measure import measure
from pals_core.evaluation.origins import Origins
from pals_core.evaluation.seasonal import Season
from pals_core.forecast.recent import fitting, invalid_input, is_whole, learnt_scalers, not_fitting, table_for
from pals_core.torch_defaults import own_torch_defaults


@own_torch_defaults()
def backtest(
    checkpoint: str | Path,
    table: Table | pd.DataFrame | str | Path,
    *,
    stride: int = 1,
    start: str | pd.Timestamp | None = None,
) -> Evaluation:
    """Return the errors of forecasts made at every `stride`-th step of a table, beside those of the seasonal naive one.

    `table` has the columns of the training, of a pooled one some of its series, at its frequency or the one it was
    resampled from. The first step that is forecast is the first from `start` on that has input_len steps and a season
    before it; a `start` with a time zone is read as a table's times are. Each forecast is the network's
    horizon long, and reads what had come by then: with `stride` 1 this is what the evaluation at a training's end does
    over the test part. The scaling, MASE's denominators and the widths of the intervals are the checkpoint's. Missing
    values are treated as in one part of a split: `interpolate` fills a gap from both its sides. Raises
    InvalidCheckpoint, InvalidTable for a table that cannot be read, InvalidForecastInput for one that does not fit, and
    FileNotFoundError.
    """
    if not is_whole(stride) or stride < 1:
        raise invalid_input(f"stride is {stride!r}; it must be a whole number of at least 1")
    begin = None if start is None else _time_of(start)
    trained = read_checkpoint(Path(checkpoint))
    header = trained.header
    given, names, slow = fitting(header, table_for(header, table, None), None)
    data = header.spec.data.model_copy(
        update={"targets": names, "resample": None if slow else header.spec.data.resample}
    )
    try:
        groups = grouped(given, data)
        places = [header.columns.index(group.columns[0]) for group in groups]
        scalers = [learnt_scalers(header, place) for place in places]
        lengths = window_lengths(data)
        horizon, earliest = lengths.horizon, max(lengths.input_len, header.season)
        first = [_first_row(group, earliest, begin) for group in groups]
        if begin is not None and all(
            row > len(group.times) - horizon for row, group in zip(first, groups, strict=True)
        ):
            raise invalid_input(
                f"no step from start, {start}, on has {earliest} steps before it and {horizon} to "
                "be compared with; begin earlier, or give more rows"
            )
        at_once = windows_at_once(header.spec.training.batch_size)
        rolled = rolling_windows(groups, scalers, data, first_row=first, stride=stride, at_once=at_once)
    except (InvalidTable, InvalidSpec) as error:
        raise not_fitting(error) from error

    network = trained.build()

    def forecast(batch: Batch) -> Tensor:
        output: Tensor = network(batch.x_enc, batch.x_mark_enc, batch.x_dec, batch.x_mark_dec)
        return output

    naive_errors = np.array([np.nan if error is None else error for error in header.naive_errors], dtype=np.float64)
    origins = Origins(
        windows=rolled.windows,
        times=rolled.times,
        groups=rolled.groups,
        scaler=joined([scaler for scaler, _ in scalers]),
        columns=names,
        frequency=header.frequency,
        stride=stride,
    )
    season = Season(header.season, naive_errors[places] if data.pooled else naive_errors)
    with torch.inference_mode():
        measured = measure(forecast, origins, season, header.calibration)
        if not np.isfinite(measured.mse):
            raise invalid_input("the forecasts are not finite; the values are too far from those of the training")
        return measured.evaluation()


def _time_of(start: str | pd.Timestamp) -> pd.Timestamp:
    """Return the time that somebody gave; raises InvalidForecastInput."""
    wrong = invalid_input(f"start is {start!r}, which is no time; write it like 2024-01-31 13:00")
    if isinstance(start, Real):
        raise wrong
    try:
        time = pd.Timestamp(start)
        if pd.isna(time):
            raise wrong
        return time.ceil("us").as_unit("us")
    except (ValueError, TypeError, OverflowError) as error:
        raise wrong from error


def _first_row(group: Table, earliest: int, start: pd.Timestamp | None) -> int:
    """Return the first row of a group that is forecast, `earliest` being the first that can be."""
    if start is None:
        return earliest
    if start.tzinfo is not None:
        local = start.tz_localize(None)
        # As a table's own times: midnights of a zone are days there, and all else is taken in UTC.
        are_days = local == local.normalize() and bool((group.times == group.times.normalize()).all())
        start = local if are_days else start.tz_convert("UTC").tz_localize(None)
    return max(earliest, int(group.times.searchsorted(start)))
