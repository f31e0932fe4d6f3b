"""ONNX files forecast as PyTorch does, for every model, in every batch, and say what goes in."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from onnx import numpy_helper

from pals_core.checkpoint.file import PackedMasks, read_checkpoint, write_checkpoint
from pals_core.compaction.compact import Part, compact
from pals_core.data.calendar import calendar_features
from pals_core.data.lengths import window_lengths
from pals_core.data.table import Table
from pals_core.errors import ErrorCode, ExportFailed
from pals_core.export import onnx as onnx_module
from pals_core.export.interface import NETWORK_INPUTS
from pals_core.export.onnx import OnnxExport, export_onnx
from pals_core.forecast.forecaster import load_forecaster
from tests.core.training.small_training import MODEL_NAMES

CheckpointOf = Callable[..., Path]
Arrays = dict[str, npt.NDArray[Any]]

ODD = {"input_len": 13, "label_len": 5, "horizon": 4}
READ = {
    "transformer": ("x_enc", "x_mark_enc", "x_mark_dec"),
    "nstransformer": ("x_enc", "x_mark_enc", "x_mark_dec"),
    "informer": ("x_enc", "x_mark_enc", "x_mark_dec"),
    "autoformer": ("x_enc", "x_mark_enc", "x_mark_dec"),
    "fedformer": ("x_enc", "x_mark_enc", "x_mark_dec"),
    "itransformer": ("x_enc", "x_mark_enc"),
    "patchtst": ("x_enc",),
    "dlinear": ("x_enc",),
    "nlinear": ("x_enc",),
}


Exported = Callable[[str], tuple[Path, OnnxExport]]


@pytest.fixture(scope="module")
def exported(checkpoint_of: CheckpointOf, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Give a checkpoint of a model by name and its ONNX file in original units, made when first asked for."""

    @functools.cache
    def make(name: str) -> tuple[Path, OnnxExport]:
        checkpoint = checkpoint_of(name, data=ODD)
        return checkpoint, export_onnx(checkpoint, tmp_path_factory.mktemp(name) / "file.onnx")

    return make


def session_of(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def facts_of(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    return {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}


def run(session: onnxruntime.InferenceSession, inputs: Arrays) -> npt.NDArray[Any]:
    [forecast] = session.run(["forecast"], {each.name: inputs[each.name] for each in session.get_inputs()})
    return np.asarray(forecast)


def windows(table: Table, facts: dict[str, Any], count: int) -> tuple[Arrays, list[Table]]:
    """Inputs of windows one step apart, made as any program would, and the recent values they begin with."""
    length, label, horizon = (facts[key] for key in ("input_len", "label_len", "horizon"))
    columns = [table.columns.index(name) for name in facts["columns"]]
    future = [table.columns.index(name) for name in facts["known_future"]]
    calendar = calendar_features(table.times, facts["frequency"])
    marks = np.hstack((calendar, table.values[:, future]))
    starts = range(count)
    inputs = {
        "x_enc": np.stack([table.values[start : start + length, columns] for start in starts]),
        "x_mark_enc": np.stack([marks[start : start + length] for start in starts]),
        "x_mark_dec": np.stack([marks[start + length - label : start + length + horizon] for start in starts]),
    }
    recent = [
        Table(table.times[start : start + length], table.values[start : start + length], table.columns, table.frequency)
        for start in starts
    ]
    return inputs, recent


def assert_forecasts_agree(checkpoint: Path, file: Path, table: Table, batches: tuple[int, ...] = (1, 3, 7)) -> None:
    session, forecaster = session_of(file), load_forecaster(checkpoint)
    facts = facts_of(session)
    for batch in batches:
        inputs, recent = windows(table, facts, batch)
        found = run(session, inputs)
        after = Table(table.times, table.values, table.columns, table.frequency) if facts["known_future"] else None
        expected = np.stack([forecaster.forecast(one, after).values for one in recent])
        assert found.shape == expected.shape == (batch, facts["horizon"], len(facts["columns"]))
        assert np.abs((found - expected) / facts["scaler_std"]).max() <= 1e-4


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_in_original_units_the_file_forecasts_what_the_forecaster_does(
    name: str, exported: Exported, series: Table
) -> None:
    checkpoint, export = exported(name)
    assert export.inputs == READ[name]
    assert export.bytes == export.path.stat().st_size
    assert 0 <= export.max_difference <= 1e-4
    onnx.checker.check_model(onnx.load(export.path), full_check=True)
    assert [each.name for each in session_of(export.path).get_inputs()] == list(READ[name])
    assert_forecasts_agree(checkpoint, export.path, series)
    assert [file.name for file in export.path.parent.iterdir()] == ["file.onnx"]


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_in_scaled_units_the_file_is_the_network(name: str, checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    """With odd lengths, a decoder longer than the encoder, no label and one column."""
    table = one_column()
    layers = {} if name in ("dlinear", "nlinear") else {"encoder_layers": 1}
    path = checkpoint_of(name, table=table, data={"input_len": 9, "label_len": 0, "horizon": 12}, **layers)
    export = export_onnx(path, tmp_path / "file.onnx", units="scaled")
    assert export.inputs == NETWORK_INPUTS
    checkpoint, session = read_checkpoint(path), session_of(export.path)
    model, lengths = checkpoint.build(), window_lengths(checkpoint.header.spec.data)
    generator = torch.Generator().manual_seed(5)
    for batch in (1, 3, 7):
        steps = (lengths.input_len, lengths.input_len, lengths.decoder_len, lengths.decoder_len)
        inputs = [
            torch.randn(batch, length, width, generator=generator)
            for length, width in zip(steps, (1, 3, 1, 3), strict=True)
        ]
        with torch.no_grad():
            expected = model(*inputs).numpy()
        found = run(session, dict(zip(NETWORK_INPUTS, [value.numpy() for value in inputs], strict=True)))
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= 1e-4


def one_column() -> Table:
    times = pd.date_range("2021-03-01", periods=200, freq="D").as_unit("us")
    values = 1e6 + np.random.default_rng(2).normal(size=(200, 1)).cumsum(axis=0)
    return Table(times, values, ("far from zero",), "D")


@pytest.mark.parametrize("name", ["informer", "fedformer"])
def test_the_published_axis_order_is_exported_too(
    name: str, checkpoint_of: CheckpointOf, series: Table, tmp_path: Path
) -> None:
    checkpoint = checkpoint_of(name, published_axis_order=True)
    assert_forecasts_agree(checkpoint, export_onnx(checkpoint, tmp_path / "file.onnx").path, series, (2,))


def test_values_far_from_zero_keep_their_precision(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    table = one_column()
    checkpoint = checkpoint_of("nlinear", table=table)
    assert_forecasts_agree(checkpoint, export_onnx(checkpoint, tmp_path / "file.onnx").path, table)


def test_yearly_data_have_no_calendar_to_give(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    table = Table(
        pd.date_range("1800-01-01", periods=200, freq="YS").as_unit("us"), one_column().values, ("yearly",), "YS-JAN"
    )
    checkpoint = checkpoint_of("autoformer", table=table, data={"input_len": 8, "label_len": 4, "horizon": 3})
    export = export_onnx(checkpoint, tmp_path / "file.onnx")
    assert export.inputs == ("x_enc",)
    assert_forecasts_agree(checkpoint, export.path, table)


def test_known_future_columns_come_in_their_own_units(
    checkpoint_of: CheckpointOf, series: Table, tmp_path: Path
) -> None:
    data = {"known_future": ["rising"], "input_len": 10, "label_len": 4, "horizon": 3}
    checkpoint = checkpoint_of("transformer", data=data)
    export = export_onnx(checkpoint, tmp_path / "file.onnx")
    facts = facts_of(session_of(export.path))
    assert (facts["columns"], facts["known_future"]) == (["calm", "noise"], ["rising"])
    assert len(facts["calendar_features"]) == 3
    assert_forecasts_agree(checkpoint, export.path, series)


def test_of_pooled_series_each_window_names_its_own(checkpoint_of: CheckpointOf, series: Table, tmp_path: Path) -> None:
    checkpoint = checkpoint_of("dlinear", data={"series": "pooled"})
    export = export_onnx(checkpoint, tmp_path / "file.onnx")
    assert export.inputs == ("x_enc", "series")
    session, forecaster = session_of(export.path), load_forecaster(checkpoint)
    facts = facts_of(session)
    recent = Table(series.times[:12], series.values[:12], series.columns, series.frequency)
    expected = forecaster.forecast(recent)
    assert facts["pooled"] is True
    places = [2, 0, 1, 0]
    found = run(session, {"x_enc": recent.values.T[places, :, None], "series": np.array(places)})
    assert (
        np.abs((found[:, :, 0] - expected.values.T[places]) / np.array(facts["scaler_std"])[places, None]).max() < 1e-4
    )


def test_where_missing_values_were_masked_nan_is_one(
    checkpoint_of: CheckpointOf, series: Table, tmp_path: Path
) -> None:
    checkpoint = checkpoint_of("nlinear", data={"missing": "mask"})
    export = export_onnx(checkpoint, tmp_path / "file.onnx")
    values = series.values.copy()
    values[3:6, 1] = np.nan
    gaps = Table(series.times, values, series.columns, series.frequency)
    assert_forecasts_agree(checkpoint, export.path, gaps)


@pytest.mark.parametrize("name", ["nstransformer", "fedformer"])
def test_the_files_weights_are_those_of_the_checkpoint_zeros_included(name: str, exported: Exported) -> None:
    path, export = exported(name)
    checkpoint = read_checkpoint(path)
    file = onnx.load(export.path)
    held = {each.name: numpy_helper.to_array(each) for each in file.graph.initializer}
    for key, weight in checkpoint.weights.items():
        if key not in checkpoint.masks:
            continue
        assert not checkpoint.masks[key].all(), key
        if weight.is_complex():
            # A shared block is listed under the last layer that has it.
            mixing = key.replace("layers.0.attention", "layers.1.attention").replace(".weight", ".mixing")
            found = held[f"{mixing}.real"] + 1j * held[f"{mixing}.imaginary"]
            found *= checkpoint.header.spec.model.d_model**2 if "cross" in key else 1  # type: ignore[union-attr]
            assert np.allclose(found, weight.numpy(), rtol=1e-6)
        else:
            found = held[key] if key in held else held[f"{key}.transposed"].T.reshape(weight.shape)
            assert np.array_equal(found, weight.numpy())
        assert np.array_equal(found == 0, ~checkpoint.masks[key].numpy() | (weight == 0).numpy())


def test_a_file_depends_on_the_checkpoint_alone(exported: Exported, tmp_path: Path) -> None:
    checkpoint, export = exported("patchtst")
    first = export.path.read_bytes()
    torch.manual_seed(99)
    random = torch.get_rng_state()
    assert export_onnx(str(checkpoint), str(tmp_path / "second.onnx")).path.read_bytes() == first
    assert torch.equal(torch.get_rng_state(), random)
    assert b".py" not in first
    assert str(Path.cwd()).encode() not in first


def test_the_metadata_are_enough_to_prepare_the_inputs(exported: Exported) -> None:
    checkpoint, export = exported("itransformer")
    facts, header = facts_of(session_of(export.path)), read_checkpoint(checkpoint).header
    assert facts["units"] == "original"
    assert facts["columns"] == list(header.columns)
    assert facts["frequency"] == "D"
    assert facts["calendar_features"] == ["day_of_week", "day_of_month", "day_of_year"]
    assert {key: facts[key] for key in ODD} == ODD
    assert facts["scaler_mean"] == list(header.scaler_mean)
    assert facts["scaler_std"] == list(header.scaler_std)
    assert facts["sparsity"] == header.sparsity
    assert facts["missing"] == "error"


def test_a_compacted_network_forecasts_the_same(exported: Exported, series: Table, tmp_path: Path) -> None:
    checkpoint, whole = exported("nstransformer")
    assert compact(read_checkpoint(checkpoint)).report.removed(Part.NEURONS) > 0
    compacted = export_onnx(checkpoint, tmp_path / "compacted.onnx", compacted=True)
    assert compacted.bytes < whole.bytes
    assert_forecasts_agree(checkpoint, compacted.path, series, (2,))


@pytest.mark.parametrize("name", ["transformer", "nstransformer", "fedformer"])
def test_what_is_left_when_every_neuron_and_head_is_empty_is_exported(
    name: str, checkpoint_of: CheckpointOf, series: Table, tmp_path: Path
) -> None:
    whole = read_checkpoint(checkpoint_of(name, data=ODD))
    emptied = ("output.weight", "contract.weight", "hidden.1.weight")
    weights = {
        key: torch.zeros_like(weight) if key.endswith(emptied) else weight for key, weight in whole.weights.items()
    }
    masks = PackedMasks.of({key: weights[key] != 0 for key in whole.masks})
    layers = {
        key: masks.layer(key, weights[key], layer.flops_dense, whole.header.precision)
        for key, layer in whole.header.layers.items()
    }
    path = tmp_path / "empty.pals.safetensors"
    header = whole.header.model_copy(update={"layers": layers})
    write_checkpoint(path, replace(whole, header=header, weights=weights, masks=masks))
    report = compact(read_checkpoint(path)).report
    assert report.removed(Part.HEADS) == report.of(Part.HEADS) > 0
    export = export_onnx(path, tmp_path / "compacted.onnx", compacted=True)
    assert_forecasts_agree(path, export.path, series, (1, 2))


def test_without_its_packages_the_export_says_what_to_install(
    checkpoint_of: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else there(name))
    with pytest.raises(ExportFailed, match=r"needs onnxscript; .*pip install 'pals\[onnx\]'") as refusal:
        export_onnx(checkpoint_of("nlinear"), tmp_path / "file.onnx")
    assert refusal.value.code is ErrorCode.EXPORT_FAILED
    assert not list(tmp_path.iterdir())


def test_a_file_that_forecasts_otherwise_is_not_written(
    checkpoint_of: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_module, "TOLERANCE", -1.0)
    with pytest.raises(ExportFailed, match="onnxruntime forecasts otherwise than PyTorch"):
        export_onnx(checkpoint_of("nlinear"), tmp_path / "file.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_too_large_for_one_file_is_refused(
    checkpoint_of: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_module, "MAX_BYTES", 100)
    with pytest.raises(ExportFailed, match="bytes as ONNX; a file holds 100 of weights"):
        export_onnx(checkpoint_of("nlinear"), tmp_path / "file.onnx")
    assert not list(tmp_path.iterdir())


def test_unknown_units_are_refused(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'metric'"):
        export_onnx(checkpoint_of("nlinear"), tmp_path / "file.onnx", units="metric")
