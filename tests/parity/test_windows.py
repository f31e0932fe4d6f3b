"""Windows, calendar features and scaling against the published program's, to 1e-9 in double precision."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch.testing import assert_close

from pals_core.data.frequency import calendar_family
from pals_core.data.table import read_table
from pals_core.data.windows import make_windows
from pals_core.spec import DataSpec

# The published program's letters where they are not pandas' aliases of today.
ALIASES = {"s": "s", "t": "min", "h": "h", "d": "D", "b": "B", "w": "W", "m": "ME", "q": "QE", "y": "YE", "a": "YE"}
TOLERANCE = {"rtol": 0.0, "atol": 1e-9}


def test_reference_windows_are_found(reference_dir: Path) -> None:
    assert list(reference_dir.glob("windows_*.safetensors"))


def test_windows_are_the_published_ones(windows_file: Path, reference_dir: Path, series_dir: Path) -> None:
    with safe_open(windows_file, framework="pt") as file:
        header = file.metadata()
        golden = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    input_len, label_len, horizon = json.loads(header["seq_len,label_len,pred_len"])
    data = DataSpec.model_validate(
        {
            "input_len": input_len,
            "label_len": label_len,
            "horizon": horizon,
            "split": json.loads(header["split"]),
        }
    )
    table = read_table(series_dir / header["file"])
    letter = header["freq"].lower()
    frequency = ALIASES.get(letter, letter)
    assert calendar_family(table.frequency) is calendar_family(frequency)
    windows = make_windows(replace(table, frequency=frequency), data, dtype=torch.float64)

    np.testing.assert_allclose(windows.scaler.mean, golden["scaler.mean"].numpy(), rtol=1e-9)
    np.testing.assert_allclose(windows.scaler.std, golden["scaler.std"].numpy(), rtol=1e-9)
    parts = {"train": windows.train, "val": windows.validation, "test": windows.test}
    assert {name: len(part) for name, part in parts.items()} == json.loads(header["windows"])
    places = [(name, index) for name, part in parts.items() for index in (0, len(part) // 2, len(part) - 1)]
    for name, index in places:
        key = f"{name}.{index}"
        batch = parts[name].batch(torch.tensor([index]))
        assert_close(batch.x_enc[0], golden[f"{key}.x"], **TOLERANCE)
        assert_close(batch.x_mark_enc[0], golden[f"{key}.x_mark"], **TOLERANCE)
        assert_close(batch.x_dec[0, :label_len], golden[f"{key}.y"][:label_len], **TOLERANCE)
        assert not batch.x_dec[0, label_len:].any()
        assert_close(batch.target[0], golden[f"{key}.y"][label_len:], **TOLERANCE)
        assert_close(batch.x_mark_dec[0], golden[f"{key}.y_mark"], **TOLERANCE)
