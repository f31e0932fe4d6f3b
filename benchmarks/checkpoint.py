"""Size of checkpoint files, and time and memory to load them, for the illness NSTransformer of 10.5 million weights.

    make checkpoint SERIES=folder/of/the/series

A short training with PALS is written in every precision, each evaluated on the test part. Sizes at other sparsities are
of the same network with masks at random, which no longer forecasts. Each file is loaded in processes of its own, so
that its peak memory is its own: as the first one there, and after a small one, when the code is in memory already.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table as Rows

from benchmarks.command import run_command
from benchmarks.machine import ROOT, provenance
from pals_core import train
from pals_core.checkpoint.file import Checkpoint, PackedMasks, read_checkpoint, write_checkpoint
from pals_core.checkpoint.header import StoredPrecision
from pals_core.checkpoint.tensor_file import replacing
from pals_core.checkpoint.values import STORED_TYPES
from pals_core.data.table import Table, read_table
from pals_core.training.conversion import in_precision, write_dense

FIELDS: dict[str, Any] = {
    "data": {"horizon": 24},
    "model": {"name": "nstransformer"},
    "method": {"name": "pals", "update_interval": 5},
    "training": {"seed": 2020, "precision": "fp32", "device": "cpu"},
}
SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)


def largest(checkpoint: Checkpoint) -> int:
    """Return the most bytes that the file of a checkpoint may take (docs/checkpoint-format.md)."""
    header = checkpoint.header
    unmasked = header.total_parameters - header.maskable_parameters
    values = header.active_parameters * STORED_TYPES[header.precision].itemsize
    return int(1.02 * (values + header.maskable_parameters / 8 + 4 * unmasked + 64 * 1024))


def with_sparsity(checkpoint: Checkpoint, sparsity: float) -> Checkpoint:
    """Return the network with random masks, all of one sparsity, and random weights."""
    generator = torch.Generator().manual_seed(0)
    masks, weights = {}, dict(checkpoint.weights)
    for name in checkpoint.masks:
        weight = weights[name]
        masks[name] = torch.rand(weight.shape, generator=generator) >= sparsity
        weights[name] = torch.randn(weight.shape, generator=generator) * 0.05 * masks[name]
    changed = replace(checkpoint, weights=weights, masks=PackedMasks.of(masks))
    layers = {
        name: changed.masks.layer(name, weights[name], layer.flops_dense, checkpoint.header.precision)
        for name, layer in checkpoint.header.layers.items()
    }
    return replace(changed, header=checkpoint.header.model_copy(update={"layers": layers, "metrics": None}))


def in_own_process(*files: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.checkpoint_child", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def measured(path: Path, small: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """Write and load one file: first in its process, and there after a `small` one."""
    size = write_checkpoint(path, checkpoint)
    header = checkpoint.header
    codes = sum(map(len, checkpoint.masks.codes.values()))
    dense = sum(parameter.nbytes for parameter in checkpoint.build().parameters())
    first, after_small = in_own_process(path), in_own_process(small, path)
    return {
        "precision": str(header.precision),
        "sparsity": round(header.sparsity, 4),
        "bytes": size,
        "share_of_bound": round(size / largest(checkpoint), 4),
        "position_bits_per_weight": round(8 * codes / header.maskable_parameters, 3),
        "dense_bytes": dense,
        "mse": None if header.metrics is None else header.metrics.mse,
        "mse_change": header.mse_change,
        **first,
        "peak_growth_of_dense": round(first["peak_growth_bytes"] / dense, 3),
        "peak_growth_after_a_small_one_of_dense": round(after_small["peak_growth_bytes"] / dense, 3),
    }


def study(table: Table, epochs: int, folder: Path) -> dict[str, Any]:
    fields = FIELDS | {"training": FIELDS["training"] | {"epochs": epochs}}
    trained = read_checkpoint(train(fields, table, folder).path)
    sizes = FIELDS["model"] | {"d_model": 16, "d_ff": 16, "heads": 2}
    small = train(
        fields | {"model": sizes, "training": fields["training"] | {"epochs": 1}}, table, folder / "small"
    ).path
    variants = [in_precision(trained, precision, table) for precision in StoredPrecision]
    return {
        "trained": fields,
        "epochs": epochs,
        "dense_file_bytes": write_dense(folder / "dense", trained),
        "variants": [measured(folder / "file", small, variant) for variant in variants],
        "random_masks": [measured(folder / "file", small, with_sparsity(trained, sparsity)) for sparsity in SPARSITIES],
    }


def show(report: dict[str, Any]) -> None:
    rows = Rows(box=None, header_style="bold")
    for title in ("masks", "precision", "sparsity", "MB", "of the bound", "bits/position", "first load s (processor)",
                  "load s (processor)", "peak/dense (first)", "test MSE"):  # fmt: skip
        rows.add_column(title, justify="right")
    for masks in ("variants", "random_masks"):
        for row in report[masks]:
            change = row["mse_change"]
            error = "" if row["mse"] is None else f"{row['mse']:.4f}" + ("" if change is None else f" ({change:+.3%})")
            rows.add_row(
                "trained" if masks == "variants" else "random", row["precision"], f"{row['sparsity']:.3f}",
                f"{row['bytes'] / 1e6:.2f}", f"{row['share_of_bound']:.3f}", f"{row['position_bits_per_weight']:.3f}",
                f"{row['first_load_seconds']:.3f} ({row['first_load_processor_seconds']:.3f})",
                f"{row['load_seconds']:.3f} ({row['load_processor_seconds']:.3f})",
                f"{row['peak_growth_after_a_small_one_of_dense']:.2f} ({row['peak_growth_of_dense']:.2f})", error,
            )  # fmt: skip
    Console(width=140).print(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", type=Path, help="folder with the series' files")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/checkpoint.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = study(read_table(arguments.series / "national_illness.csv"), arguments.epochs, Path(folder))
    with replacing(arguments.output) as part:
        part.write_text(json.dumps(provenance() | report, indent=1, allow_nan=False) + "\n")
    show(report)


if __name__ == "__main__":
    run_command(main)
