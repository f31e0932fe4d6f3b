from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from pals_core.checkpoint.file import read_checkpoint, write_checkpoint
from pals_core.checkpoint.header import StoredPrecision
from pals_core.data.table import Table
from pals_core.errors import ExportFailed, InvalidCheckpoint, InvalidTable
from pals_core.export.formats import ExportFormat
from pals_core.export.variant import write_variant
from pals_core.forecast.forecaster import load_forecaster
from pals_core.training.conversion import in_precision

FP32, FP16, BF16, INT8 = StoredPrecision


@pytest.fixture(scope="module")
def table(series: Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the series that the checkpoint was trained on."""
    path = tmp_path_factory.mktemp("table") / "series.csv"
    lines = [
        ",".join((time.isoformat(), *map(repr, row)))
        for time, row in zip(series.times, series.values.tolist(), strict=True)
    ]
    path.write_text("\n".join(["date," + ",".join(series.columns), *lines]))
    return path


@pytest.mark.parametrize("precision", [FP16, BF16, INT8])
def test_a_rounded_checkpoint_states_what_it_did_to_the_test_errors(
    best_checkpoint: Path, table: Path, series: Table, tmp_path: Path, precision: StoredPrecision
) -> None:
    output = tmp_path / "variant"
    change = write_variant(best_checkpoint, output, ExportFormat.PACKED, precision, series=table)
    written = read_checkpoint(output)

    expected = in_precision(read_checkpoint(best_checkpoint), precision, series)
    assert written.header == expected.header
    assert change == written.header.mse_change
    assert change is not None
    assert written.header.may_be_default == (change <= 0.01)
    assert output.stat().st_size < best_checkpoint.stat().st_size


def test_without_its_series_the_change_is_not_known(best_checkpoint: Path, tmp_path: Path) -> None:
    assert write_variant(best_checkpoint, tmp_path / "variant", ExportFormat.PACKED, INT8) is None
    assert not read_checkpoint(tmp_path / "variant").header.may_be_default


def test_another_series_measures_nothing(best_checkpoint: Path, table: Path, tmp_path: Path) -> None:
    lines = table.read_text().splitlines()
    (other := tmp_path / "other.csv").write_text("\n".join(lines[:-20]))

    with pytest.raises(InvalidTable, match="not the series"):
        write_variant(best_checkpoint, tmp_path / "variant", ExportFormat.PACKED, FP16, series=other)


def test_the_dense_tensors_are_those_of_the_network(best_checkpoint: Path, tmp_path: Path) -> None:
    assert write_variant(best_checkpoint, tmp_path / "variant", ExportFormat.DENSE, FP32) is None
    state = read_checkpoint(best_checkpoint).build().state_dict()

    tensors = load_file(tmp_path / "variant")
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], state[name]) for name in state)


def test_the_onnx_file_forecasts(best_checkpoint: Path, series: Table, tmp_path: Path) -> None:
    write_variant(best_checkpoint, tmp_path / "variant", ExportFormat.ONNX, FP32)
    session = onnxruntime.InferenceSession(tmp_path / "variant")

    inputs = {one.name: one.shape for one in session.get_inputs()}
    given = {name: np.zeros([1 if isinstance(size, str) else size for size in shape]) for name, shape in inputs.items()}
    [forecast] = session.run(None, given)
    horizon = load_forecaster(best_checkpoint).header.spec.data.horizon
    assert forecast.shape == (1, horizon, len(series.columns))


def test_the_card_names_the_file_and_comes_with_its_pictures(best_checkpoint: Path, tmp_path: Path) -> None:
    evaluation = best_checkpoint.with_name(best_checkpoint.name.replace(".pals.safetensors", ".evaluation.json"))
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        write_variant(
            best_checkpoint,
            tmp_path / folder / "variant",
            ExportFormat.CARD,
            FP32,
            name="waves",
            evaluation=evaluation,
        )

    with zipfile.ZipFile(tmp_path / "first" / "variant") as archive:
        assert archive.namelist() == ["README.md", "density.png", "errors.png"]
        assert 'load_forecaster("waves.pals.safetensors")' in archive.read("README.md").decode()
    assert (tmp_path / "first" / "variant").read_bytes() == (tmp_path / "second" / "variant").read_bytes()
    assert [path.name for path in (tmp_path / "first").iterdir()] == ["variant"]


@pytest.mark.parametrize("kind", [ExportFormat.DENSE, ExportFormat.ONNX, ExportFormat.CARD])
def test_only_packed_files_are_rounded(best_checkpoint: Path, tmp_path: Path, kind: ExportFormat) -> None:
    with pytest.raises(ExportFailed, match="fp32 alone"):
        write_variant(best_checkpoint, tmp_path / "variant", kind, INT8)


def test_a_weight_too_large_for_the_precision_is_no_fault_of_the_file(best_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(best_checkpoint)
    name = next(iter(checkpoint.masks))
    checkpoint.weights[name][checkpoint.masks[name]] = 1e6
    write_checkpoint(large := tmp_path / "large", replace(checkpoint))

    with pytest.raises(ExportFailed):
        write_variant(large, tmp_path / "variant", ExportFormat.PACKED, FP16)
    assert not (tmp_path / "variant").exists()


@pytest.mark.parametrize("kind", list(ExportFormat))
def test_a_damaged_file_is_told_apart(best_checkpoint: Path, tmp_path: Path, kind: ExportFormat) -> None:
    (damaged := tmp_path / "damaged").write_bytes(best_checkpoint.read_bytes()[:-1])

    with pytest.raises(InvalidCheckpoint):
        write_variant(damaged, tmp_path / "variant", kind, FP32)
    with pytest.raises(FileNotFoundError):
        write_variant(tmp_path / "nothing", tmp_path / "variant", kind, FP32)


def test_each_kind_of_file_has_a_name_of_its_own() -> None:
    kinds = [(kind, precision) for kind in ExportFormat for precision in StoredPrecision if kind.has(precision)]

    suffixes = {kind.suffix(precision) for kind, precision in kinds}
    assert len(suffixes) == len(kinds) == 7
    assert {".pals.safetensors", ".int8.pals.safetensors", ".onnx", ".card.zip"} < suffixes
