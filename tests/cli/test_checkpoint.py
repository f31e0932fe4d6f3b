from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from cli.main import app
from pals_core.checkpoint.container import read_header
from pals_core.checkpoint.file import read_checkpoint
from pals_core.checkpoint.header import StoredPrecision
from pals_core.data.table import Table
from tests.core.checkpoint.forgery import forge, set_field


def pals(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["checkpoint", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def file(best_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(best_checkpoint, tmp_path / "co2.pals.safetensors"))


@pytest.fixture
def table(series: Table, tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    pd.DataFrame(series.values, index=series.times, columns=list(series.columns)).to_csv(path, index_label="date")
    return path


def test_a_checkpoint_is_shown(file: Path) -> None:
    done = pals("inspect", file)
    header = read_header(file)
    assert done.exit_code == 0
    assert f"{file.stat().st_size:,} bytes, fp32" in done.stdout
    assert "nstransformer, 12 steps to 4, D" in done.stdout
    assert f"{header.sparsity:.1%}" in done.stdout
    assert f"{header.flops_sparse:,} FLOPs" in done.stdout
    for name in header.layers:
        assert name in done.stdout


def test_a_checkpoint_is_told_as_json(file: Path) -> None:
    told = json.loads(pals("inspect", file, "--json").stdout)
    header = read_header(file)
    assert told["layers"]["projection.weight"]["active"] == header.layers["projection.weight"].active
    assert told["metrics"]["mse"] == header.metrics.mse if header.metrics else None
    assert told["total"]["flops_sparse"] == header.flops_sparse
    assert told["total"]["bytes"] == header.bytes
    assert (told["file_bytes"], told["may_be_default"]) == (file.stat().st_size, True)


@pytest.mark.parametrize("command", ["inspect", "convert", "diff"])
def test_a_file_that_is_none_is_one_line_and_an_exit_code(tmp_path: Path, file: Path, command: str) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    damaged, cut = tmp_path / "damaged", tmp_path / "cut"
    damaged.write_bytes(content)
    cut.write_bytes(content[:1000])
    for path, said in ((damaged, "digest"), (cut, "truncated"), (tmp_path / "nothing", "No such file"), (tmp_path, "")):
        done = pals(command, path, *([file] if command == "diff" else []))
        assert (done.exit_code, done.stdout) == (1, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_names_in_a_file_do_not_steer_the_terminal(tmp_path: Path, file: Path) -> None:
    forge(file, tmp_path / "forged", set_field("library_versions", value={"\x1b[2J": "\x07\n\u202e"}))
    done = pals("inspect", tmp_path / "forged")
    assert done.exit_code == 0
    assert not set("\x1b\x07\u202e").intersection(done.stdout)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_variant_is_written_beside_the_file(file: Path, table: Path, precision: str) -> None:
    before = file.read_bytes()
    done = pals("convert", file, "--precision", precision, "--series", table)
    variant = file.with_name(f"co2.{precision}.pals.safetensors")
    assert done.exit_code == 0
    assert "test MSE" in done.stdout
    header = read_checkpoint(variant).header
    assert header.precision is StoredPrecision(precision)
    assert header.mse_change is not None
    assert file.read_bytes() == before
    again = pals("convert", file, "--precision", precision)
    assert (again.exit_code, again.stderr.endswith("exists; remove it, or name another file\n")) == (1, True)


def test_a_variant_replaces_the_file_only_when_it_was_measured_to_be_as_good(
    file: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()
    unknown = pals("convert", file, "--precision", "int8", "--in-place")
    assert (unknown.exit_code, file.read_bytes()) == (1, before)
    assert "is not known; give --series" in unknown.stderr
    with monkeypatch.context() as patched:
        patched.setattr("pals_core.checkpoint.header.MAX_MSE_CHANGE", -1.0)
        worse = pals("convert", file, "--precision", "int8", "--series", table, "--in-place")
    assert (worse.exit_code, file.read_bytes()) == (1, before)
    assert "more than 1 %" in worse.stderr
    assert pals("convert", file, "--precision", "int8", "--series", table, "--in-place").exit_code == 0
    assert read_header(file).precision is StoredPrecision.INT8
    rounded_twice = pals("convert", file, "--precision", "fp16")
    assert (rounded_twice.exit_code, "in int8 already" in rounded_twice.stderr) == (1, True)


def test_dense_tensors_are_written_beside_the_file(file: Path) -> None:
    assert pals("convert", file, "--format", "dense").exit_code == 0
    tensors = load_file(file.with_name("co2.dense.safetensors"))
    assert set(tensors) == set(read_checkpoint(file).weights)


@pytest.mark.parametrize(
    "options", [("--format", "dense", "--precision", "fp16"), ("--format", "dense", "--in-place"), ("x", "--in-place")]
)
def test_options_that_do_not_go_together_are_refused(file: Path, options: tuple[str, ...]) -> None:
    done = pals("convert", file, *options)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)


def test_two_checkpoints_are_compared(file: Path, table: Path) -> None:
    pals("convert", file, "--precision", "int8", "--series", table)
    other = file.with_name("co2.int8.pals.safetensors")
    shown = pals("diff", file, other)
    assert shown.exit_code == 0
    assert "/precision" in shown.stdout
    assert "masks: 100.0% of the weights" in shown.stdout
    told = json.loads(pals("diff", file, other, "--json").stdout)
    assert [field["pointer"] for field in told["fields"]] == ["/precision"]
    assert 0 < max(tensor["distance"] for tensor in told["tensors"]) < 0.02
