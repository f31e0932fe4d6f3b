from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from cli.evaluation_picture import draw_evaluation
from pals_core import train
from pals_core.data.split import Part
from pals_core.data.table import Table
from pals_core.figures import ACCENT, INK, MUTED
from tests.cli.test_pictures import share_of


def evaluated(columns: int, folder: Path, **data: Any) -> Any:
    """The evaluation of a small training, as it comes over HTTP."""
    steps = np.arange(260)
    noise = np.random.default_rng(5).normal(size=(260, columns))
    values = 10 + np.sin(steps / 7)[:, None] + 0.1 * noise
    if data.get("missing"):
        values[::9] = np.nan
    times = pd.date_range("2021-03-01", periods=260, freq="D").as_unit("us")
    spans = (Part(0, 260),) * columns if data.get("series") == "pooled" else ()
    table = Table(times, values, tuple(f"c{place}" for place in range(columns)), "D", spans)
    spec = {"data": {"input_len": 12, "horizon": 6, **data}, "model": "nlinear", "training": {"epochs": 1}}
    return train(spec, table, folder).evaluation.model_dump(mode="json")


@pytest.mark.parametrize(
    ("columns", "data"),
    [(1, {}), (3, {}), (3, {"series": "pooled"}), (2, {"missing": "mask"})],
    ids=["one column", "columns", "pooled", "gaps"],
)
def test_it_shows_the_errors_and_three_windows(tmp_path: Path, columns: int, data: dict[str, Any]) -> None:
    path = tmp_path / "evaluation.png"
    draw_evaluation(path, evaluated(columns, tmp_path, **data), column="c1")
    assert imread(path).shape[:2] == (1590, 1500)
    for colour in (ACCENT, INK, MUTED):
        assert share_of(path, colour) > 0.0005


def test_without_intervals_and_without_mase_it_is_drawn_as_well(tmp_path: Path) -> None:
    evaluation = evaluated(2, tmp_path)
    banded, bare = tmp_path / "banded.png", tmp_path / "bare.png"
    draw_evaluation(banded, evaluation)
    for sample in evaluation["samples"]:
        sample["intervals"] = []
    for kind in ("forecaster", "naive"):
        evaluation[kind]["by_step"]["mase"] = None
    draw_evaluation(bare, evaluation)
    white = [float((np.asarray(imread(path))[:, :, :3] == 1).all(axis=2).mean()) for path in (banded, bare)]
    assert white[0] < white[1] - 0.01, "the bands cover white paper"
