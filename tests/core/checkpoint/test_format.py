"""Files as docs/checkpoint-format.md describes them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pals_core.checkpoint.container import ITEM_BYTES, MAX_HEADER_BYTES
from pals_core.checkpoint.file import Checkpoint, read_checkpoint, write_checkpoint
from pals_core.checkpoint.header import (
    MAX_MSE_CHANGE,
    MAX_TRACED_EPOCHS,
    CheckpointHeader,
    StoredPrecision,
    summary_of,
)
from pals_core.data.table import Table
from pals_core.spec import Spec
from pals_core.training.trainer import Trainer
from tests.core.checkpoint import plain_reader

PAGE = (Path(__file__).parents[3] / "docs" / "checkpoint-format.md").read_text()


def rounded(checkpoint: Checkpoint, precision: StoredPrecision) -> Checkpoint:
    """The same network with a header of another precision."""
    layers = {
        name: checkpoint.masks.layer(name, checkpoint.weights[name], layer.flops_dense, precision)
        for name, layer in checkpoint.header.layers.items()
    }
    header = checkpoint.header.model_copy(update={"precision": precision, "metrics": None, "layers": layers})
    return replace(checkpoint, header=header)


@pytest.mark.parametrize("precision", StoredPrecision)
@pytest.mark.parametrize("model", ["nstransformer", "fedformer", "informer", "dlinear"])
def test_another_reader_reads_the_same(
    model: str, precision: StoredPrecision, make_spec: Callable[..., Spec], series: Table, tmp_path: Path
) -> None:
    sizes = {} if model == "dlinear" else {"d_model": 16, "d_ff": 32, "heads": 2, "encoder_layers": 2}
    spec = make_spec(model={"name": model} | sizes, training={"epochs": 1})
    for _ in Trainer(spec, series, tmp_path).run():
        pass
    checkpoint = rounded(read_checkpoint(tmp_path / "epoch-001.pals.safetensors"), precision)
    path = tmp_path / "variant.pals.safetensors"
    write_checkpoint(path, checkpoint)

    description, tensors = plain_reader.read(path)
    loaded = read_checkpoint(path)
    assert description == json.loads(loaded.header.model_dump_json())
    for name, weight in loaded.weights.items():
        read = tensors.pop(name)
        assert read.dtype == weight.numpy().dtype
        assert np.array_equal(read, weight.numpy()), name
    assert np.array_equal(tensors.pop("series.values")[0], series.values[-12:])
    assert tensors.pop("series.starts").tolist() == series.times[-12:-11].as_unit("us").asi8.tolist()
    assert not tensors


def test_the_other_reader_is_small_and_its_own() -> None:
    source = Path(plain_reader.__file__).read_text()
    assert len([line for line in source.splitlines() if line.strip()]) <= 60
    assert re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE) == [
        "hashlib",
        "json",
        "pathlib",
        "typing",
        "numpy",
    ]


def test_the_page_lists_every_field_of_the_description() -> None:
    table = PAGE.split("## Description")[1].split("## Variants")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for cell in cells for name in re.findall("`(\\w+)`", cell)} == set(CheckpointHeader.model_fields)


def test_the_page_says_the_limits() -> None:
    assert f"at most {MAX_HEADER_BYTES >> 20} MiB" in PAGE
    assert f"of more than {MAX_TRACED_EPOCHS} the first" in PAGE
    assert f"at\nmost {MAX_MSE_CHANGE}" in PAGE
    named = set(re.findall(r"\b(?:F64|F32|F16|BF16|I64|I8|U8)\b", PAGE))
    assert named <= set(ITEM_BYTES)


def test_a_trace_of_many_epochs_is_thinned(best_checkpoint: Path) -> None:
    [*_, last] = read_checkpoint(best_checkpoint).header.trace
    epochs = [last.model_copy(update={"epoch": number, "step": number}) for number in range(1, 1001)]
    kept = [epoch.epoch for epoch in summary_of(epochs)]
    assert (len(kept), kept[0], kept[-1]) == (MAX_TRACED_EPOCHS, 1, 1000)
    assert np.diff(kept).min() >= 15
    assert np.diff(kept).max() <= 16
    assert summary_of(epochs[:64]) == tuple(epochs[:64])
