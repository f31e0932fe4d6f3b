from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pals_core.checkpoint import file
from pals_core.checkpoint.container import DENSE_KEY, MAX_HEADER_BYTES, STATE_KEY, read_header
from pals_core.checkpoint.file import Checkpoint, PackedMasks, read_checkpoint, write_checkpoint
from pals_core.checkpoint.positions import encode_positions
from pals_core.checkpoint.tensor_file import unfinished, write_tensors
from pals_core.data.table import Table
from pals_core.errors import InvalidCheckpoint
from pals_core.forecast.forecaster import load_forecaster
from pals_core.training.trainer import Trainer
from tests.core.checkpoint.forgery import Change, add, drop, forge, set_field, set_tensor, with_value


def same(one: Checkpoint, other: Checkpoint) -> bool:
    return (
        one.header == other.header
        and all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights | other.weights)
        and all(torch.equal(one.masks[name], other.masks[name]) for name in {*one.masks, *other.masks})
        and len(one.series_ends) == len(other.series_ends)
        and all(
            np.array_equal(mine.values, yours.values) and mine.times.equals(yours.times)
            for mine, yours in zip(one.series_ends, other.series_ends, strict=True)
        )
    )


@pytest.fixture(scope="module")
def checkpoint(best_checkpoint: Path) -> Checkpoint:
    return read_checkpoint(best_checkpoint)


def test_what_is_written_is_read_bit_for_bit(checkpoint: Checkpoint, best_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.pals.safetensors"
    size = write_checkpoint(path, checkpoint)
    assert size == path.stat().st_size
    assert same(read_checkpoint(path), checkpoint)
    assert path.read_bytes() == best_checkpoint.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_the_network_that_is_built_has_these_weights(checkpoint: Checkpoint) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    model = checkpoint.build()
    assert torch.equal(torch.rand(3), expected)
    assert not model.training
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, checkpoint.weights[name])


def test_the_end_of_the_series_is_kept(checkpoint: Checkpoint, series: Table) -> None:
    (end,) = checkpoint.series_ends
    assert np.array_equal(end.values, series.values[-12:])
    assert end.times.equals(series.times[-12:])


def test_the_file_is_as_small_as_its_active_weights_allow(checkpoint: Checkpoint, best_checkpoint: Path) -> None:
    header = checkpoint.header
    unmasked = header.total_parameters - header.maskable_parameters
    bound = 4 * header.active_parameters + header.maskable_parameters / 8 + 4 * unmasked + 64 * 1024
    assert best_checkpoint.stat().st_size <= 1.02 * bound


def test_the_header_alone_can_be_read(checkpoint: Checkpoint, best_checkpoint: Path) -> None:
    assert read_header(best_checkpoint) == checkpoint.header


def test_an_interrupted_write_leaves_the_old_file(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept.pals.safetensors"
    write_checkpoint(path, checkpoint)
    before = path.read_bytes()

    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pals_core.checkpoint.tensor_file.with_digest", no_space)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(path, checkpoint)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_goes_with_the_next_one(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "kept.pals.safetensors"
    unfinished(path).mkdir()
    (unfinished(path) / ".tmp1LhmZ7").write_bytes(b"half a file")

    write_checkpoint(path, checkpoint)

    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "nothing")


@pytest.mark.parametrize("read", [read_checkpoint, read_header, load_forecaster])
def test_a_folder_is_no_checkpoint(tmp_path: Path, read: Callable[[str], object]) -> None:
    with pytest.raises(InvalidCheckpoint, match="is a folder"):
        read(str(tmp_path))


@pytest.mark.parametrize(
    ("key", "kind"), [(STATE_KEY, "the state of a training"), (DENSE_KEY, "dense weights for other programs")]
)
def test_another_file_of_ours_is_called_what_it_is(tmp_path: Path, key: str, kind: str) -> None:
    path = tmp_path / "file"
    write_tensors(path, key, "{}", {})
    with pytest.raises(InvalidCheckpoint, match=f"holds {kind}.*; what is needed here is a checkpoint"):
        read_header(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999999))
def test_a_truncated_file_is_refused(best_checkpoint: Path, tmp_path: Path, share: float) -> None:
    content = best_checkpoint.read_bytes()
    path = tmp_path / "damaged"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InvalidCheckpoint):
        read_checkpoint(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(in_header=st.booleans(), share=st.floats(0, 0.999999), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused(
    best_checkpoint: Path, tmp_path: Path, in_header: bool, share: float, bit: int
) -> None:
    content = bytearray(best_checkpoint.read_bytes())
    header_end = 8 + struct.unpack("<Q", content[:8])[0]
    position = int(share * header_end) if in_header else header_end + int(share * (len(content) - header_end))
    content[position] ^= 1 << bit
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with pytest.raises(InvalidCheckpoint):
        read_checkpoint(path)


def test_bytes_after_the_end_are_refused(best_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "longer"
    path.write_bytes(best_checkpoint.read_bytes() + b"\0")
    with pytest.raises(InvalidCheckpoint, match="too long"):
        read_checkpoint(path)


def entry(**changes: Any) -> dict[str, Any]:
    """The header's entry of a tensor of one byte."""
    return {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]} | changes


def container(**entries: Any) -> bytes:
    """A file of one byte of data that its header describes so."""
    header = json.dumps({"__metadata__": {"sha256": "0" * 64, "pals": "{}"}} | entries).encode()
    return struct.pack("<Q", len(header)) + header + b"\0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "0 bytes", id="empty"),
        pytest.param(b"PK\x03\x04", "4 bytes", id="short"),
        pytest.param(struct.pack("<Q", 2**63) + b"{}", "at most", id="header too large"),
        pytest.param(struct.pack("<Q", MAX_HEADER_BYTES) + b"{}", "truncated", id="header beyond the end"),
        pytest.param(struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc", "not valid JSON", id="not text"),
        pytest.param(struct.pack("<Q", 20_000) + b"[" * 20_000, "not valid JSON", id="nested"),
        pytest.param(struct.pack("<Q", 13) + b'{"a":1,"a":2}', "twice", id="doubled name"),
        pytest.param(struct.pack("<Q", 2) + b"[]", "no checkpoint description", id="a list"),
        pytest.param(struct.pack("<Q", 2) + b"{}", "no checkpoint description", id="another container"),
        pytest.param(
            struct.pack("<Q", 34) + b'{"__metadata__":{"pals":"\\ud800"}}', "description", id="half a character"
        ),
        pytest.param(struct.pack("<Q", 28) + b'{"__metadata__":{"pals":""}}', "no digest", id="no digest"),
        pytest.param(container(a={}), "not those of a tensor", id="an empty entry"),
        pytest.param(container(a=entry(dtype="F8")), "not those of a tensor", id="unknown type"),
        pytest.param(container(a=entry(shape=[2**40, 2**40])), "not those of a tensor", id="petabytes"),
        pytest.param(container(a=entry(shape=[-1])), "not those of a tensor", id="negative shape"),
        pytest.param(container(a=entry(shape=[True])), "not those of a tensor", id="shape that is no number"),
        pytest.param(container(a=entry(shape=[1] * 9)), "not those of a tensor", id="nine axes"),
        pytest.param(container(a=entry(data_offsets=[0, 1, 1])), "not those of a tensor", id="three offsets"),
        pytest.param(container(a=entry(extra=1)), "not those of a tensor", id="a field more"),
        pytest.param(container(a=entry(), b=entry()), "overlaps", id="the same bytes twice"),
        pytest.param(container(a=entry(data_offsets=[1, 2])), "gap", id="a gap"),
        pytest.param(container(a=entry(), b=entry(data_offsets=[1, 2])), "truncated or too long", id="too few bytes"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match=message):
        read_checkpoint(path)


WEIGHT = "projection.weight"  # [3, 16], not dense

HOSTILE = [
    pytest.param(set_field("format_version", value=2), "version 2", id="another version"),
    pytest.param(set_field("format_version", value=None), "version None", id="no version"),
    pytest.param(set_field("surprise", value=1), "description", id="unknown field"),
    pytest.param(set_field("scaler_std", 0, value=0.0), "standard deviation", id="zero deviation"),
    pytest.param(set_field("scaler_std", 0, value=-1.0), "standard deviation", id="negative deviation"),
    pytest.param(set_field("scaler_mean", 0, value=float("nan")), "description", id="mean that is no number"),
    pytest.param(set_field("scaler_mean", value=[0.0]), "length", id="short scaler"),
    pytest.param(set_field("columns", value=["calm", "calm", "noise"]), "twice", id="doubled column"),
    pytest.param(set_field("columns", value=["a"] * 2), "twice", id="fewer columns"),
    pytest.param(set_field("spec", "data", "series", value=None), "joint or pooled", id="open series"),
    pytest.param(set_field("spec", "data", "series", value="pooled"), "calibration", id="pooled after all"),
    pytest.param(set_field("spec", "data", "known_future", value=["sun"]), "known-future", id="unscaled known future"),
    pytest.param(set_field("spec", "data", "known_future", value=["calm"]), "description", id="known future target"),
    pytest.param(set_field("known_future_mean", value=[[0.0]]), "known-future", id="known future without columns"),
    pytest.param(set_field("resampled_from", value="h"), "original frequency", id="resampled without a wish"),
    pytest.param(set_field("spec", "data", "resample", value="W"), "original frequency", id="resampled from nothing"),
    pytest.param(set_field("frequency", value="fortnight"), "frequency", id="unknown frequency"),
    pytest.param(set_field("frequency", value="h"), "calendar features", id="another frequency"),
    pytest.param(set_field("calendar_features", value=[]), "calendar features", id="no calendar"),
    pytest.param(set_field("spec", "data", "input_len", value=None), "input_len", id="unresolved spec"),
    pytest.param(set_field("spec", "data", "input_len", value=13), "network|steps", id="another input length"),
    pytest.param(set_field("spec", "model", "d_ff", value=32768), "layers", id="a larger network"),
    pytest.param(set_field("spec", "model", value={"name": "dlinear"}), "layers", id="another network"),
    pytest.param(set_field("spec", "model", "heads", value=3), "heads", id="impossible network"),
    pytest.param(set_field("layers", WEIGHT, "weights", value=2**62), "layers", id="too many weights"),
    pytest.param(set_field("layers", WEIGHT, "active", value=1), "counts", id="another count"),
    pytest.param(set_field("layers", WEIGHT, "active", value=49), "more active weights", id="impossible count"),
    pytest.param(set_field("total_parameters", value=7), "parameter count", id="another total"),
    pytest.param(set_field("layers", WEIGHT, "bytes", value=1), "1 bytes", id="another size"),
    pytest.param(set_field("trace", value=[]), "description", id="no trace"),
    pytest.param(set_field("trace", 0, "step", value=2**40), "not in order", id="trace out of order"),
    pytest.param(set_field("trace", 0, "moves", value={"jump": 1}), "description", id="unknown move"),
    pytest.param(set_field("precision", value="fp16"), "precision is fp16", id="another precision"),
    pytest.param(set_field("precision", value="int8"), "lacks the tensor", id="no scales"),
    pytest.param(set_field("mse_change", value=0.0), "no change", id="change of full precision"),
    pytest.param(drop("series.starts"), "lacks the tensor 'series.starts'", id="no times"),
    pytest.param(drop(f"{WEIGHT}.positions"), "lacks", id="no positions"),
    pytest.param(drop("projection.bias"), "lacks", id="no bias"),
    pytest.param(add("extra"), "unknown tensor 'extra'", id="unknown tensor"),
    pytest.param(
        set_field("spec", "model", value={"name": "patchtst", "patch_len": 16}),
        "describes no network: patchtst cuts the input",
        id="patches longer than the input",
    ),
    pytest.param(set_field("layers", WEIGHT, "shape", value=[2**40, 2**40]), "layers", id="huge shape"),
    pytest.param(set_field("layers", WEIGHT, "shape", value=[16, 3]), "layers", id="turned shape"),
    pytest.param(set_tensor(f"{WEIGHT}.positions", lambda t: t[:-1].clone()), "bytes", id="positions cut short"),
    pytest.param(set_tensor(f"{WEIGHT}.positions", lambda t: t.bool()), "row of bytes", id="positions of another type"),
    pytest.param(set_tensor(f"{WEIGHT}.positions", lambda t: t.view(1, -1)), "row of bytes", id="positions in a table"),
    pytest.param(set_tensor(f"{WEIGHT}.positions", torch.zeros_like), WEIGHT, id="positions of another count"),
    pytest.param(set_tensor(f"{WEIGHT}.values", lambda t: t[1:].clone()), "values", id="a value too few"),
    pytest.param(set_tensor(f"{WEIGHT}.values", lambda t: t.double()), "values", id="values of another type"),
    pytest.param(set_tensor(f"{WEIGHT}.values", with_value(0, float("nan"))), "not finite", id="weight NaN"),
    pytest.param(set_tensor("projection.bias", lambda t: t[:1].clone()), "projection.bias", id="short bias"),
    pytest.param(set_tensor("projection.bias", with_value(0, float("inf"))), "not finite", id="infinite bias"),
    pytest.param(set_tensor("series.values", lambda t: t[:, :5].clone()), "12 steps", id="short series"),
    pytest.param(set_tensor("series.values", with_value(0, float("nan"))), "not finite", id="unknown value"),
    pytest.param(set_tensor("series.values", lambda t: t.float()), "12 steps", id="rounded series"),
    pytest.param(set_tensor("series.starts", lambda t: t[:0].clone()), "1 times", id="no start"),
    pytest.param(set_tensor("series.starts", lambda t: t.double()), "1 times", id="a start in fractions"),
    pytest.param(set_tensor("series.starts", with_value(0, -(2**63))), "grid", id="no time"),
    pytest.param(set_tensor("series.starts", with_value(0, 2**63 - 1)), "grid", id="a time far away"),
    pytest.param(set_tensor("series.starts", with_value(0, 2**63 - 1 - 10**12)), "grid", id="the end of time"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_a_forged_file_is_refused(best_checkpoint: Path, tmp_path: Path, change: Change, message: str) -> None:
    path = tmp_path / "forged"
    forge(best_checkpoint, path, change)
    with pytest.raises(InvalidCheckpoint, match=message) as caught:
        read_checkpoint(path)
    assert len(caught.value.message) < 700


def test_a_forgery_that_changes_nothing_is_read(best_checkpoint: Path, tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = tmp_path / "unchanged"
    forge(best_checkpoint, path, lambda description, tensors: None)
    assert same(read_checkpoint(path), checkpoint)


def test_constants_that_would_fill_the_memory_are_refused(
    best_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "forged"

    def change(description: dict[str, Any], tensors: dict[str, Any]) -> None:
        description["spec"]["data"]["horizon"] = 100_000
        description["calibration"] = None

    forge(best_checkpoint, path, change)
    monkeypatch.setattr("pals_core.checkpoint.file.MAX_DERIVED_BYTES", 2**20)
    with pytest.raises(InvalidCheckpoint, match="constants"):
        read_checkpoint(path)


@pytest.mark.parametrize("frequency", ["W-SAT", "MS", "B", "15min", "YS-JAN"])
def test_times_of_other_frequencies_come_back(
    checkpoint: Checkpoint, tmp_path: Path, series: Table, make_spec: Callable[..., Any], frequency: str
) -> None:
    times = pd.date_range("2001-01-01", periods=len(series.times), freq=frequency).as_unit("us")
    table = Table(times, series.values, series.columns, frequency)
    spec = make_spec(model={"name": "dlinear"}, training={"epochs": 1})
    for _ in Trainer(spec, table, tmp_path).run():
        pass
    loaded = read_checkpoint(tmp_path / "epoch-001.pals.safetensors")
    assert loaded.series_ends[0].times.equals(times[-12:])


def test_a_series_that_begins_off_its_grid_is_refused(
    tmp_path: Path, series: Table, make_spec: Callable[..., Any]
) -> None:
    times = pd.date_range("2001-01-06", periods=len(series.times), freq="W-SAT").as_unit("us")
    spec = make_spec(model={"name": "dlinear"}, training={"epochs": 1})
    for _ in Trainer(spec, Table(times, series.values, series.columns, "W-SAT"), tmp_path).run():
        pass
    forge(
        tmp_path / "epoch-001.pals.safetensors",
        tmp_path / "forged",
        set_tensor("series.starts", lambda t: t + 86_400_000_000),
    )
    with pytest.raises(InvalidCheckpoint, match="not on a W-SAT grid"):
        read_checkpoint(tmp_path / "forged")


def test_a_dense_and_an_empty_tensor_come_back(checkpoint: Checkpoint, tmp_path: Path) -> None:
    name, emptied = list(checkpoint.masks)[:2]
    weights, masks = dict(checkpoint.weights), dict(checkpoint.masks)
    masks[name] = torch.ones_like(masks[name])
    masks[emptied], weights[emptied] = torch.zeros_like(masks[emptied]), torch.zeros_like(weights[emptied])
    packed = PackedMasks.of(masks)
    layers = {
        name: packed.layer(name, weights[name], layer.flops_dense, checkpoint.header.precision)
        for name, layer in checkpoint.header.layers.items()
    }
    header = checkpoint.header.model_copy(update={"layers": layers})
    changed_checkpoint = replace(checkpoint, header=header, weights=weights, masks=packed)
    write_checkpoint(tmp_path / "file", changed_checkpoint)
    assert same(read_checkpoint(tmp_path / "file"), changed_checkpoint)


def test_only_masks_that_are_other_tensors_are_packed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = {name: torch.arange(size) % 3 > 0 for name, size in (("kept", 20), ("changed", 30))}
    before = PackedMasks.of(masks)
    masks["changed"] = torch.arange(30) % 4 > 0
    packed: list[int] = []

    def counted(mask: np.ndarray) -> np.ndarray:
        packed.append(mask.size)
        return encode_positions(mask)

    monkeypatch.setattr(file, "encode_positions", counted)
    again = PackedMasks.of(masks, before)
    assert packed == [30]
    for name, mask in masks.items():
        assert np.array_equal(again.codes[name], encode_positions(mask.numpy()))
        assert again[name] is mask
