from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from cli.example_series import Series
from cli.pictures import draw_forecast, draw_training
from pals_client import Event, MetricSeries
from pals_core.figures import ACCENT, INK, MUTED, SECOND, THIRD

START = datetime(2001, 1, 6)


def weekly(first: int, count: int) -> Series:
    weeks = range(first, first + count)
    return Series([START + timedelta(weeks=week) for week in weeks], [370 + 3 * np.sin(week / 8) for week in weeks])


def share_of(path: Path, colour: str) -> float:
    """The share of pixels of just this colour."""
    pixels = np.asarray(imread(path))[:, :, :3]
    return float((np.abs(pixels - np.array(to_rgb(colour))).max(axis=2) < 0.02).mean())


def update(step: int, move: str, sparsity: float) -> Event:
    data: dict[str, Any] = {"step": step, "move": move, "sparsity": sparsity}
    return Event(id=step, created_at="", attempt=1, type="mask_update", level="info", message="", data=data)


def test_the_forecast_picture_shows_what_was_measured_and_both_forecasts(tmp_path: Path) -> None:
    path = tmp_path / "forecast.png"
    draw_forecast(path, history=weekly(0, 200), hindcast=weekly(148, 52), forecast=weekly(200, 52), sparsity=0.75)

    assert imread(path).shape[:2] == (750, 1500)
    for colour in (INK, SECOND, ACCENT):
        assert share_of(path, colour) > 0.0005


@pytest.mark.parametrize("moves", [("shrink", "stable", "expand"), ("shrink",), ()])
def test_the_training_picture_shows_losses_and_the_moves_that_were_made(tmp_path: Path, moves: tuple[str, ...]) -> None:
    path = tmp_path / "training.png"
    steps = [*range(1, 101)]
    updates = [update(10 * (number + 1), move, 0.1 * (number + 1)) for number, move in enumerate(moves)]
    metrics = {
        "train_loss": MetricSeries(steps=steps, values=[1 / step for step in steps]),
        "validation_loss": MetricSeries(steps=[50, 100], values=[0.1, 0.05]),
        "sparsity": MetricSeries(
            steps=[0, *(one["data"]["step"] for one in updates)],
            values=[0.0, *(one["data"]["sparsity"] for one in updates)],
        ),
    }
    draw_training(path, metrics=metrics, updates=updates, best_step=100)

    assert imread(path).shape[:2] == (930, 1500)
    for colour in (MUTED, SECOND):
        assert share_of(path, colour) > 0.0005
    # The legend names every move; a triangle in the plot is larger than the one there.
    assert (share_of(path, THIRD) > 0.00008) == ("shrink" in moves)
