"""A checkpoint's model card: a Markdown page with figures and pictures, for people."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pals_core.checkpoint.file import Checkpoint, read_checkpoint
from pals_core.checkpoint.header import CheckpointHeader
from pals_core.checkpoint.tensor_file import replacing
from pals_core.compaction.compact import CompactionReport, Part, compact
from pals_core.data.lengths import window_lengths
from pals_core.errors import ExportFailed, pointer_of
from pals_core.evaluation.document import Evaluation
from pals_core.export.card_pictures import draw_density, draw_errors
from pals_core.spec import Split
from pals_core.torch_defaults import own_torch_defaults

PAGE, DENSITY, ERRORS = "README.md", "density.png", "errors.png"
_SHOWN_COLUMNS = 20
# What Markdown gives a meaning to in the middle of a line.
_MARKDOWN = re.compile(r"([\\`*_\[\]#|<>~&$])")


@own_torch_defaults()
def model_card(
    checkpoint_path: str | Path,
    output_dir: str | Path,
    *,
    evaluation: Evaluation | str | Path | Mapping[str, Any] | None = None,
) -> Path:
    """Write README.md and its pictures into a folder, made when it is not there, and return the page's path.

    `evaluation` is an evaluation, its JSON document, or its file, for the errors by horizon step. The card depends on
    the checkpoint and the evaluation alone. Raises InvalidCheckpoint, ExportFailed for a document that is no evaluation
    of this checkpoint, and FileNotFoundError for a file that is not there.
    """
    path, folder = Path(checkpoint_path), Path(output_dir)
    checkpoint = read_checkpoint(path)
    horizon = window_lengths(checkpoint.header.spec.data).horizon
    evaluated = None if evaluation is None else _evaluation(evaluation, horizon)
    report = compact(checkpoint).report
    folder.mkdir(parents=True, exist_ok=True)
    draw_density(folder / DENSITY, checkpoint.header)
    if evaluated is not None:
        draw_errors(folder / ERRORS, evaluated)
    else:
        (folder / ERRORS).unlink(missing_ok=True)
    text = "\n\n".join(_sections(checkpoint, path, report, evaluated)) + "\n"
    with replacing(folder / PAGE) as part:
        part.write_text(text, encoding="utf-8")
    return folder / PAGE


def _evaluation(document: Evaluation | str | Path | Mapping[str, Any], horizon: int) -> Evaluation:
    try:
        if isinstance(document, Evaluation):
            evaluation = document
        elif isinstance(document, Mapping):
            evaluation = Evaluation.model_validate(document)
        else:
            evaluation = Evaluation.model_validate_json(Path(document).read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = pointer_of(first["loc"])
        raise ExportFailed(f"the evaluation cannot be read: {place}: {first['msg']}") from error
    if evaluation.horizon != horizon:
        raise ExportFailed(
            f"the evaluation is of {evaluation.horizon} horizon steps and the checkpoint of {horizon}; give the one of "
            "this checkpoint"
        )
    return evaluation


def _sections(
    checkpoint: Checkpoint, path: Path, report: CompactionReport, evaluation: Evaluation | None
) -> Iterator[str]:
    header = checkpoint.header
    horizon = window_lengths(header.spec.data).horizon
    columns = f"{len(header.columns)} columns" if len(header.columns) > 1 else _plain(header.columns[0])
    yield f"# {header.spec.model.name}: {columns}, {horizon} steps ahead"
    yield (
        f"A sparse forecaster: {header.sparsity:.1%} of its weights are off. It was trained with PALS's method "
        f"`{header.spec.method.name}` and is kept in one packed safetensors file, without pickle."
    )
    yield _table(("", ""), _at_a_glance(header))
    yield "## Data"
    yield _table(("", ""), _data(header))
    yield "## Sparsity"
    yield from _sparsity(checkpoint, path, report)
    if header.metrics is not None or evaluation is not None:
        yield "## Errors"
        yield from _errors(header, evaluation)
    yield "## Use"
    yield _use(header, path)
    yield "## Spec"
    yield "All of it, defaults filled in; with the same data it trains the same network again."
    spec = json.dumps(header.spec.model_dump(mode="json"), indent=2, ensure_ascii=False)
    yield _fenced(spec, "json")
    yield (
        "Made with " + ", ".join(f"{name} {version}" for name, version in sorted(header.library_versions.items())) + "."
    )


def _at_a_glance(header: CheckpointHeader) -> Iterator[tuple[str, str]]:
    yield "forecaster", f"`{header.spec.model.name}`"
    yield "method", f"`{header.spec.method.name}`"
    yield "sparsity", f"{header.sparsity:.2%} of {header.maskable_parameters:,} maskable weights are off"
    yield "one forecast", f"{header.flops_dense:,} FLOPs dense, {header.flops_sparse:,} sparse"
    if header.metrics is not None:
        yield "test MSE, MAE", f"{header.metrics.mse:.4g}, {header.metrics.mae:.4g} in scaled units"
    yield "trained", f"to epoch {header.epoch}, {header.step:,} optimiser steps; seed {header.spec.training.seed}"
    yield "validation loss", f"{header.validation_loss:.6g}"


def _data(header: CheckpointHeader) -> Iterator[tuple[str, str]]:
    data, lengths = header.spec.data, window_lengths(header.spec.data)
    yield "pooled series" if data.pooled else "columns", _listed(header.columns)
    if data.known_future:
        yield "known-future columns", _listed(data.known_future)
    resampled = f", made from {_plain(header.resampled_from)}" if header.resampled_from else ""
    yield "frequency", _plain(header.frequency) + resampled
    yield (
        "window",
        f"{lengths.input_len} steps in, {lengths.label_len} of them for the decoder, {lengths.horizon} ahead",
    )
    yield "split", _split(data.split)
    yield "missing values", f"`{data.missing}`"
    yield "calendar features", ", ".join(name.replace("_", " ") for name in header.calendar_features) or "none"
    yield "sha256 of the data", f"`{header.dataset_sha256}`" if header.dataset_sha256 else "not known"


def _split(split: Split) -> str:
    unit = "{:.0f} rows" if split.counts_rows else "{:.0%}"
    parts = ((split.train, "training"), (split.validation, "validation"), (split.test, "test"))
    return "in this order: " + ", ".join(f"{unit.format(size)} {name}" for size, name in parts)


def _sparsity(checkpoint: Checkpoint, path: Path, report: CompactionReport) -> Iterator[str]:
    header = checkpoint.header
    dense = sum(parameter.nbytes for parameter in checkpoint.build().parameters())
    yield _table(
        ("", "dense", "sparse"),
        (
            ("maskable weights", f"{header.maskable_parameters:,}", f"{header.active_parameters:,}"),
            (
                "all parameters",
                f"{header.total_parameters:,}",
                f"{header.total_parameters - header.maskable_parameters + header.active_parameters:,}",
            ),
            ("FLOPs of one forecast", f"{header.flops_dense:,}", f"{header.flops_sparse:,}"),
            ("bytes", f"{dense:,} of parameters", f"{path.stat().st_size:,} of the file"),
        ),
    )
    yield f"![Share of each layer's weights that are on]({DENSITY})"
    yield _table(
        ("weights", "shape", "on", "density", "FLOPs dense", "FLOPs sparse", "bytes"),
        (
            (
                f"`{name}`",
                " × ".join(map(str, layer.shape)),
                f"{layer.active:,}",
                f"{1 - layer.sparsity:.1%}",
                f"{layer.flops_dense:,}",
                f"{layer.flops_sparse:,}",
                f"{layer.bytes:,}",
            )
            for name, layer in header.layers.items()
        ),
    )
    yield (
        "FLOPs sparse are those of a forecast in which weights that are off cost nothing; a program that multiplies by "
        "zeros as well spends the dense ones."
    )
    yield _compaction(report)


def _compaction(report: CompactionReport) -> str:
    if not report.layers:
        return "The forecaster has no feed-forward neurons or attention heads that could be empty."
    counts = [f"{report.removed(part)} of {report.of(part):,} {part}" for part in Part if report.of(part)]
    return (
        f"Left empty by the masks, and so removable without changing a forecast: {' and '.join(counts)} "
        f"({report.flops_before - report.flops_after:,} FLOPs dense)."
    )


def _errors(header: CheckpointHeader, evaluation: Evaluation | None) -> Iterator[str]:
    if header.metrics is not None:
        metrics = header.metrics
        yield "Means over every window of the test part."
        yield _table(
            ("", "MSE", "MAE"),
            (
                ("scaled units", f"{metrics.mse:.6g}", f"{metrics.mae:.6g}"),
                ("the data's units", f"{metrics.original.mse:.6g}", f"{metrics.original.mae:.6g}"),
            ),
        )
    if evaluation is not None:
        yield f"![Errors by horizon step]({ERRORS})"


def _use(header: CheckpointHeader, path: Path) -> str:
    given = f"the last {window_lengths(header.spec.data).input_len} time steps or more, as a pandas frame"
    arguments = "recent, future" if header.spec.data.known_future else "recent"
    lines = [
        "from pals_core import load_forecaster",
        "",
        f"forecaster = load_forecaster({json.dumps(path.name, ensure_ascii=False)})",
    ]
    if not header.spec.data.known_future:
        lines.append("forecaster.forecast().to_frame()  # after the end of the series it was trained on")
    lines.append(f"forecaster.forecast({arguments}).to_frame()  # recent: {given}")
    if header.spec.data.known_future:
        lines.append("# future: the known-future columns at the time steps to forecast")
    return _fenced("\n".join(lines), "python")


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(_plain(name) for name in names[:_SHOWN_COLUMNS])
    return shown + (f" and {len(names) - _SHOWN_COLUMNS} others" if len(names) > _SHOWN_COLUMNS else "")


def _plain(name: str) -> str:
    """A name from the data as text that Markdown shows as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(name.split()))


def _fenced(text: str, language: str) -> str:
    """A block of code, between more backticks than the text has in a row."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
