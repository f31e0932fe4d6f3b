"""Small tables that ask for known-future columns, pooling, masking and resampling."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pals_core.data.split import Part
from pals_core.data.table import Table

NSTRANSFORMER = {"name": "nstransformer", "d_model": 8, "d_ff": 8, "heads": 2, "encoder_layers": 1}


def wide() -> Table:
    """A daily column that follows a known one, and another; 200 steps."""
    rng = np.random.default_rng(7)
    weather = rng.normal(size=200)
    values = np.stack((10 + 3 * weather + 0.1 * rng.normal(size=200), rng.normal(5, 2, 200), weather), axis=1)
    return Table(
        pd.date_range("2022-03-01", periods=200, freq="D").as_unit("us"), values, ("sales", "other", "sun"), "D"
    )


def gappy() -> Table:
    table = wide()
    table.values[np.random.default_rng(1).random(table.values.shape) < 0.15] = np.nan
    return table


def long() -> Table:
    """Three daily series of 200, 150 and 120 steps that begin and end apart."""
    spans = (Part(0, 200), Part(20, 170), Part(80, 200))
    values = wide().values * [1, 100, 0.01]
    for place, span in enumerate(spans):
        values[: span.start, place] = values[span.stop :, place] = np.nan
    return Table(wide().times, values, ("a", "b", "c"), "D", spans)


def hourly() -> Table:
    """Eight-hourly values of 200 days and a bit."""
    values = np.random.default_rng(2).normal(size=(605, 2)) + np.sin(np.arange(605) / 9)[:, None]
    return Table(pd.date_range("2022-03-01 08:00", periods=605, freq="8h").as_unit("us"), values, ("a", "b"), "8h")
