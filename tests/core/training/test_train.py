from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pals_core
from pals_core.data.table import Table
from pals_core.errors import InvalidForecastInput, InvalidSpec, TrainingFailed
from pals_core.training.events import Message, TrainingEvent
from pals_core.training.train import parse_spec

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
        pals_core.train({"data": {"horizon": -1}, "model": {"name": "dlinear", "moving_average": 2}}, series)
    assert {problem.pointer: problem.message for problem in caught.value.problems} == {
        "/data/horizon": "must be greater than or equal to 1",
        "/model/moving_average": "is not a field here; did you mean 'moving_avg'?",
    }
    with pytest.raises(InvalidSpec, match="heads") as caught:
        pals_core.train(SPEC | {"model": {"name": "nstransformer", "d_model": 6, "heads": 4}, "a/b": 1}, series)
    assert [problem.pointer for problem in caught.value.problems] == ["/model", "/a~1b"]
    assert not caught.value.problems[0].message.startswith("Value error")
    with pytest.raises(InvalidSpec) as caught:
        pals_core.train({"data": {"horizon": 2, "targets": ("a", 3)}}, series)
    assert [problem.pointer for problem in caught.value.problems] == ["/data/targets/1"]


@pytest.mark.parametrize(
    ("fields", "pointer", "message"),
    [
        ({"data": {"horizon": 2, "targets": "load"}}, "/data/targets", 'must be a list: ["load"]'),
        ({"data": {"horizon": 2, "targets": 3}}, "/data/targets", "must be a list"),
        ({"data": {"horizon": 2, "targets": []}}, "/data/targets", "must have at least 1 item"),
        ({"data": None}, "/data", "must be an object, {…}"),
        ({"data": {"horizon": 2}, "model": None}, "/model", "must be an object, {…}"),
        ({"data": {"horizon": 2, "split": [1, 2]}}, "/data/split", "must be an object, {…}"),
        (None, "", "must be an object, {…}"),
    ],
)
def test_what_a_value_must_be_is_said_in_terms_of_json(fields: Any, pointer: str, message: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(fields)
    assert [(problem.pointer, problem.message) for problem in caught.value.problems] == [(pointer, message)]


@pytest.mark.parametrize(
    ("fields", "pointer", "message"),
    [
        (
            {"model": {"name": "dlinear", "d_model": 8}},
            "/model/d_model",
            "is not a field of dlinear, which has moving_avg, per_column",
        ),
        (
            {"method": {"name": "dense", "update_interval": 3}},
            "/method/update_interval",
            "is not a field of dense, which has none",
        ),
        (
            {"method": {"name": "set", "allocations": "erk"}},
            "/method/allocations",
            "is not a field here; did you mean 'allocation'?",
        ),
        (
            {"model": {"name": "nlinear", "epochs": 3}},
            "/model/epochs",
            "is not a field here; it belongs into training",
        ),
    ],
)
def test_a_field_of_another_model_or_method_is_not_recommended(
    series: Table, fields: dict[str, Any], pointer: str, message: str
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        pals_core.train(SPEC | fields, series)
    assert [(problem.pointer, problem.message) for problem in caught.value.problems] == [(pointer, message)]


def test_what_was_read_otherwise_or_left_out_is_said(series: Table, tmp_path: Path) -> None:
    frame = frame_of(series).tz_localize("UTC").tz_convert("Africa/Lagos").assign(note="calm")
    said: list[str] = []

    def hear(event: TrainingEvent) -> None:
        if isinstance(event, Message):
            said.append(event.message)

    pals_core.train(SPEC, frame, tmp_path, on_event=hear)

    assert [("converted to UTC" in message, "'note' is left out" in message) for message in said] == [
        (True, False),
        (False, True),
    ]


def test_a_column_that_is_not_read_may_hold_anything(series: Table, tmp_path: Path) -> None:
    frame = frame_of(series)
    frame["empty"], frame["endless"] = np.nan, np.inf
    targets = list(series.columns)
    spec = SPEC | {"data": SPEC["data"] | {"targets": targets}}
    whole = pals_core.train(SPEC, series, tmp_path / "whole")
    file = tmp_path / "series.csv"
    frame.to_csv(file)

    for place, table in (("frame", frame), ("file", file)):
        chosen = pals_core.train(spec, table, tmp_path / place)
        assert chosen.result.metrics == whole.result.metrics
        backtested = pals_core.backtest(chosen.path, table, stride=5)
        assert backtested == pals_core.backtest(whole.path, series, stride=5)
    forecaster = pals_core.load_forecaster(chosen.path)
    assert np.array_equal(forecaster.forecast(frame).values, forecaster.forecast().values)

    misspelt = spec | {"data": spec["data"] | {"targets": targets[1:], "known_future": ["cal"]}}
    with pytest.raises(InvalidSpec, match="has no column 'cal'; it has calm, rising") as caught:
        pals_core.train(misspelt, frame)
    assert [problem.pointer for problem in caught.value.problems] == ["/data/known_future/0"]
    with pytest.raises(InvalidSpec, match="did you mean 'calm'") as caught:
        pals_core.train(misspelt, frame_of(series))
    assert caught.value.problems[0].pointer == "/data/known_future/0"
    with pytest.raises(InvalidForecastInput, match="has no column 'calm'; it has rising"):
        forecaster.forecast(frame.drop(columns="calm"))


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
