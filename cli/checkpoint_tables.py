"""Checkpoints as tables on a terminal. Names come from files of any origin: nothing unprintable is shown."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pals_core.checkpoint.comparison import Differences
from pals_core.checkpoint.header import CheckpointHeader, Metrics

_WIDTH_OF_FILES = 160


def printable(text: object) -> str:
    """Return `text` with whatever could steer a terminal replaced."""
    return "".join(character if character.isprintable() else "�" for character in str(text))


def show_inspection(name: str, size: int, header: CheckpointHeader) -> None:
    """Show one checkpoint of `size` bytes."""
    console = _console()
    spec, total = header.spec, header.totals
    columns = header.columns if len(header.columns) <= 8 else (*header.columns[:7], f"… {len(header.columns)} in all")
    facts = {
        "file": f"{name}, {size:,} bytes, {header.precision}",
        "forecaster": f"{spec.model.name}, {spec.data.input_len} steps to {spec.data.horizon}, {header.frequency}",
        "columns": ", ".join(columns),
        "method": f"{spec.method.name}, epoch {header.epoch}, step {header.step}, seed {spec.training.seed}",
        "sparsity": f"{header.sparsity:.1%}: {total['active']:,} of {total['weights']:,} maskable weights are active; "
        f"{header.total_parameters:,} parameters in all",
        "one forecast": f"{total['flops_sparse']:,} FLOPs, dense {total['flops_dense']:,}",
        "validation loss": f"{header.validation_loss:.6g}",
        "test": _errors(header.metrics),
    }
    if header.mse_change is not None:
        facts["rounding"] = f"test MSE {header.mse_change:+.3%} against fp32"
    facts["dataset"] = header.dataset_sha256 or "no digest"
    facts["libraries"] = ", ".join(f"{library} {version}" for library, version in header.library_versions.items())
    grid = Table.grid(padding=(0, 2))
    for label, fact in facts.items():
        grid.add_row(label, Text(printable(fact)))
    console.print(grid)

    layers = _table("layer", "shape", "weights", "active", "sparsity", "FLOPs dense", "FLOPs sparse", "bytes")
    for layer_name, layer in header.layers.items():
        counts = (layer.weights, layer.active, f"{layer.sparsity:.1%}", layer.flops_dense, layer.flops_sparse)
        _add(layers, layer_name, "×".join(map(str, layer.shape)), *counts, layer.bytes)
    for product in header.products:
        _add(layers, f"{product.module} ({product.kind})", "", "", "", "", product.flops, product.flops, "")
    layers.add_section()
    sums = (total["weights"], total["active"], f"{header.sparsity:.1%}", total["flops_dense"], total["flops_sparse"])
    _add(layers, "in all", "", *sums, total["bytes"])
    console.print(layers)


def show_differences(first: str, second: str, differences: Differences) -> None:
    """Show what parts two checkpoints."""
    console = _console()
    fields = _table("field", first, second)
    for field in differences.fields:
        _add(fields, field.pointer, _short(field.first), _short(field.second))
    for label, values in (("sparsity", differences.sparsity), ("validation loss", differences.validation_loss)):
        _add(fields, label, *(f"{value:.6g}" for value in values))
    _add(fields, "test", *map(_errors, differences.metrics))
    console.print(fields)

    tensors = _table("tensor", "active", "active", "overlap", "distance")
    for tensor in differences.tensors:
        active = tensor.active or ("", "")
        overlap = "" if tensor.overlap is None else f"{tensor.overlap:.1%}"
        _add(tensors, tensor.name, *active, overlap, f"{tensor.distance:.4g}")
    for name in differences.other_tensors:
        _add(tensors, name, "", "", "", "not in both")
    console.print(tensors)
    if differences.overlap is not None:
        console.print(f"masks: {differences.overlap:.1%} of the weights active in one are active in both")


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_OF_FILES)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column(Text(printable(first)), overflow="fold")
    for title in others:
        table.add_column(Text(printable(title)), justify="right", overflow="fold")
    return table


def _add(table: Table, *cells: object) -> None:
    table.add_row(*(Text(_counted(cell) if isinstance(cell, int) else printable(cell)) for cell in cells))


def _counted(number: int) -> str:
    """Three digits of a large number are enough for a table."""
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:.3g}{letter}"
    return str(number)


def _errors(metrics: Metrics | None) -> str:
    if metrics is None:
        return "not measured"
    original = metrics.original
    return f"MSE {metrics.mse:.6g}, MAE {metrics.mae:.6g}; in the data's units {original.mse:.6g}, {original.mae:.6g}"


def _short(value: Any) -> str:
    text = "—" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
