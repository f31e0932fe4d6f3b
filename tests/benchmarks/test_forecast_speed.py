from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import forecast_contenders, forecast_speed
from benchmarks.forecast_contenders import Contender, compared, contenders, race
from benchmarks.forecast_speed import MODELS, rounded, trained
from benchmarks.forecast_tables import markdown
from benchmarks.machine import provenance
from pals_core.checkpoint.file import read_checkpoint
from pals_core.data.table import Table
from pals_core.kernels.choice import Kernels
from tests.core.training.small_training import one_thread

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def table() -> Table:
    times = pd.date_range("2002-01-01", periods=600, freq="7D").as_unit("us")
    return Table(times, np.random.default_rng(0).normal(size=(600, 2)), ("a", "b"), "W-TUE")


@pytest.fixture(scope="module")
def paths(table: Table, tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        small = {"d_model": 64, "d_ff": 64, "heads": 2, "encoder_layers": 1}
        patch.setattr(forecast_speed, "MODELS", MODELS | {"nstransformer": small})
        return {sparsity: trained("nstransformer", sparsity, 2, table, folder) for sparsity in (0.0, 0.5)}


@pytest.fixture(scope="module")
def rows(paths: dict[float, Path], table: Table) -> list[dict[str, Any]]:
    return compared(paths, table, batch=2, rounds=2)


def test_checkpoints_have_the_sparsity_asked_for_and_are_kept(paths: dict[float, Path], table: Table) -> None:
    for sparsity, path in paths.items():
        assert read_checkpoint(path).header.sparsity == pytest.approx(sparsity, abs=1e-3)
        before = path.stat().st_mtime_ns
        assert trained("nstransformer", sparsity, 2, table, path.parent) == path
        assert path.stat().st_mtime_ns == before


def test_the_dense_network_runs_with_the_same_kernels(paths: dict[float, Path]) -> None:
    field = list(contenders(paths, 3))
    assert [(each.target, str(each.kernels)) for each in field] == [
        (0.0, "torch"),
        (0.0, "fp32"),
        (0.0, "auto"),
        (0.5, "fp32"),
        (0.5, "auto"),
    ]
    assert {len(each.inputs[0]) for each in field} == {3}
    dense = sum(parameter.numel() for parameter in field[0].checkpoint.build().parameters())
    assert field[0].weight_bytes == 4 * dense
    assert all(each.weight_bytes <= field[0].weight_bytes for each in field)


def test_what_is_told_is_what_was_measured(rows: list[dict[str, Any]]) -> None:
    assert rows[0]["times_as_fast"] == {"median": 1.0, "lowest": 1.0, "highest": 1.0}
    for row in rows:
        assert row["windows_per_second"] == pytest.approx(2000 / row["milliseconds"]["median"])
        assert abs(row["mse_change"]) < 0.05
        assert ("layers" in row) == (row["kernels"] != "torch")
        if row["kernels"] == "fp32":
            assert abs(row["mse_change"]) < 1e-6
    assert rows[0]["mse_change"] == 0
    assert rows[3]["mse"] == pytest.approx(rows[4]["mse"], rel=0.05)


def test_contenders_run_in_turns(paths: dict[float, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    class Network(torch.nn.Module):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def forward(self) -> None:
            calls.append(self.number)

    monkeypatch.setattr(forecast_contenders, "CALLS_OF_A_ROUND", 2)
    checkpoint = read_checkpoint(paths[0.0])
    field = [Contender(0.0, Kernels.TORCH, checkpoint, Network(number), (), None, 0.0) for number in (1, 2)]
    assert [len(found) for found in race(field, 3)] == [3, 3]
    assert calls == [1, 1, 1, 2, 2, 2] * 3  # the first of a turn is not timed


def test_the_page_has_a_row_for_each_contender(rows: list[dict[str, Any]]) -> None:
    cases = [{"model": "nstransformer", "batch": 2, "contenders": rows}]
    page = markdown(rounded(provenance() | {"epochs": 2, "rounds": 2, "cases": cases}))
    assert "## nstransformer, batch 2" in page
    assert page.count("| auto |") == 2
    assert page.count("| fp32 |") == 2
    assert page.count("| torch |") == 1


def test_numbers_are_written_with_five_digits() -> None:
    assert rounded({"a": [1.23456789, 3], "b": 1234567.8}) == {"a": [1.2346, 3], "b": 1234600.0}
