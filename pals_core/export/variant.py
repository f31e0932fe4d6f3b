"""A checkpoint in any of its formats, as one file, for a child process."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from pals_core.checkpoint.file import Checkpoint, read_checkpoint, write_checkpoint
from pals_core.checkpoint.header import StoredPrecision
from pals_core.data.table import read_table
from pals_core.errors import ExportFailed, InvalidCheckpoint
from pals_core.export.card import model_card
from pals_core.export.formats import ExportFormat
from pals_core.export.onnx import export_onnx
from pals_core.training.conversion import in_precision, write_dense

# The first moment a zip file can tell: what is in it does not depend on the clock.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def write_variant(
    checkpoint_path: Path,
    output: Path,
    kind: ExportFormat,
    precision: StoredPrecision,
    *,
    name: str = "checkpoint",
    series: Path | None = None,
    evaluation: Path | None = None,
) -> float | None:
    """Write a checkpoint in another format or precision, and return the measured change of its test MSE, or None.

    `series` is the table it was trained on, by which the change is measured where values are rounded; without it
    nobody knows. A card names the checkpoint's file after `name` and draws `evaluation`, the JSON document. The same
    arguments give the same file. Raises InvalidCheckpoint for the file that is read, ExportFailed for what it cannot
    be written as, InvalidTable for another series, and FileNotFoundError.
    """
    if not kind.has(precision):
        raise ExportFailed(f"{kind} is written in fp32 alone")
    if kind is ExportFormat.ONNX:
        export_onnx(checkpoint_path, output)
        return None
    if kind is ExportFormat.CARD:
        _write_card(checkpoint_path, output, name + ExportFormat.PACKED.suffix(), evaluation)
        return None
    checkpoint = read_checkpoint(checkpoint_path)
    if kind is ExportFormat.DENSE:
        write_dense(output, checkpoint)
        return None
    return _write_rounded(checkpoint, output, precision, series)


def _write_rounded(
    checkpoint: Checkpoint, output: Path, precision: StoredPrecision, series: Path | None
) -> float | None:
    table = None
    if series is not None and precision is not StoredPrecision.FP32:
        table = read_table(series, checkpoint.header.spec.data.columns)
    try:
        rounded = in_precision(checkpoint, precision, table)
        write_checkpoint(output, rounded)
    except InvalidCheckpoint as error:
        # The file was sound; it is what was asked for that cannot be.
        raise ExportFailed(error.message) from error
    return rounded.header.mse_change


def _write_card(checkpoint_path: Path, output: Path, file_name: str, evaluation: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        # The card tells its reader to load a file of this name.
        named = Path(folder) / file_name
        named.symlink_to(checkpoint_path.resolve())
        page = model_card(named, Path(folder) / "card", evaluation=evaluation)
        with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(page.parent.iterdir()):
                entry = zipfile.ZipInfo(file.name, _NO_TIME)
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
