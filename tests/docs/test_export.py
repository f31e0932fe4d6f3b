"""The page on exports says what the files hold, and its program forecasts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest

from pals_core import export_onnx, load_forecaster, train
from pals_core.data.calendar import calendar_features
from pals_core.data.frequency import Feature

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "export.md").read_text()
[PROGRAM] = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
STEPS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, its ONNX file and the values to go on from."""
    folder = tmp_path_factory.mktemp("export")
    table = pd.read_csv(ROOT / "examples" / "mauna_loa_co2.csv").tail(400)
    table["co2"] = table["co2"].interpolate()
    spec = {
        "data": {"horizon": 8, "input_len": 20},
        "model": {"name": "transformer", "d_model": 8, "d_ff": 8, "heads": 2},
        "training": {"epochs": 1, "device": "cpu"},
    }
    trained = train(spec, table, folder)
    export_onnx(trained.path, folder / "co2.onnx")
    trained.path.rename(folder / "co2.pals.safetensors")
    table.tail(STEPS).to_csv(folder / "recent.csv", index=False)
    return folder


def test_the_program_forecasts_what_the_library_does(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], cwd=folder, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    lines = [line.split(",") for line in done.stdout.strip().splitlines()]
    expected = load_forecaster(folder / "co2.pals.safetensors").forecast(pd.read_csv(folder / "recent.csv"))
    assert lines[0][1:] == list(expected.columns)
    assert [pd.Timestamp(time) for time, _ in lines[1:]] == list(expected.timestamps)
    assert np.allclose([float(value) for _, value in lines[1:]], expected.values[:, 0], rtol=0, atol=1e-3)


def test_the_programs_calendar_is_that_of_the_library() -> None:
    [source] = re.findall(r"^(CALENDAR = \{.+?^\})", PROGRAM, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(source, names)
    calendar: dict[str, Callable[[pd.DatetimeIndex], Any]] = names["CALENDAR"]
    assert set(calendar) == set(Feature)
    for frequency, features in {
        "7s": ["second", "minute", "hour", "day_of_week", "day_of_month", "day_of_year"],
        "W-SUN": ["day_of_month", "week_of_year"],
        "MS": ["month"],
    }.items():
        times = pd.date_range("2019-12-20 21:00", periods=500, freq=frequency)
        found = np.stack([np.asarray(calendar[name](times), dtype=float) - 0.5 for name in features], axis=1)
        assert np.allclose(found, calendar_features(times, frequency), rtol=0, atol=1e-12)


def test_every_key_of_the_metadata_is_on_the_page_and_no_other(folder: Path) -> None:
    lines = PAGE.splitlines()
    start = lines.index("| key | what |") + 2
    listed: list[str] = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        listed += re.findall("`(.+?)`", line.split("|")[1])
    properties = {each.key: each.value for each in onnx.load(folder / "co2.onnx").metadata_props}
    assert sorted(listed) == sorted(properties)
    for value in properties.values():
        json.loads(value)
