from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import pals_core
from pals_core.data.table import Table
from pals_core.errors import InvalidSpec, TrainingFailed

SPEC: dict[str, Any] = {
    "data": {"input_len": 12, "horizon": 4},
    "model": "dlinear",
    "training": {"epochs": 2, "device": "cpu"},
}


def frame_of(series: Table) -> pd.DataFrame:
    return pd.DataFrame(series.values, index=pd.DatetimeIndex(series.times, name="date"), columns=list(series.columns))


def test_training_in_one_call_from_a_table_a_frame_or_a_file(series: Table, tmp_path: Path) -> None:
    file = tmp_path / "series.csv"
    frame_of(series).to_csv(file)
    seen: list[str] = []
    by_table = pals_core.train(SPEC, series, tmp_path / "table", on_event=lambda event: seen.append(event.type))
    by_frame = pals_core.train(SPEC, frame_of(series), tmp_path / "frame")
    by_file = pals_core.train(SPEC, file, tmp_path / "file")
    assert seen[0] == "started"
    assert seen[-1] == "finished"
    assert by_table.path.parent == tmp_path / "table"
    assert by_table.result == by_frame.result == by_file.result
    assert by_table.path.read_bytes() == by_file.path.read_bytes()


def test_open_fields_are_filled(series: Table, tmp_path: Path) -> None:
    trained = pals_core.train(SPEC, series, tmp_path)
    spec = pals_core.read_header(trained.path).spec
    assert spec.data.label_len == 6
    assert spec.method.name == "pals"
    assert spec.method.update_interval == 1


def test_without_a_folder_a_new_one_is_made(series: Table) -> None:
    trained = pals_core.train(SPEC, series)
    assert trained.path.exists()
    for file in trained.path.parent.iterdir():
        file.unlink()
    trained.path.parent.rmdir()


def test_wrong_fields_are_named(series: Table) -> None:
    with pytest.raises(InvalidSpec) as caught:
        pals_core.train({"data": {"horizon": -1}, "model": {"name": "dlinear", "depth": 2}}, series)
    pointers = {problem.pointer for problem in caught.value.problems}
    assert "/data/horizon" in pointers
    assert len(pointers) == 2


def test_a_spec_that_does_not_fit_the_table_is_refused(series: Table) -> None:
    with pytest.raises(InvalidSpec):
        pals_core.train(SPEC | {"data": {"input_len": 12, "horizon": 5000}}, series)
    with pytest.raises(InvalidSpec, match="calme"):
        pals_core.train(SPEC | {"data": {"input_len": 12, "horizon": 4, "targets": ["calme"]}}, series)


def test_what_a_failed_training_had_reached_is_kept(series: Table, tmp_path: Path) -> None:
    huge = Table(series.times, series.values.copy(), series.columns, series.frequency)
    huge.values[-20:] *= 1e38
    with pytest.raises(TrainingFailed, match=r"test loss became .* at step \d+, at a learning rate of") as caught:
        pals_core.train(SPEC, huge, tmp_path)
    assert caught.value.checkpoint is not None
    assert pals_core.load_forecaster(caught.value.checkpoint).header.epoch >= 1
