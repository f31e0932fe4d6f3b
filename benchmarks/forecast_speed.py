"""How fast a checkpoint forecasts: PyTorch's dense fp32 against the kernels that `load_forecaster` chooses.

    make forecast-speed SERIES=folder/of/the/series
    make forecast-speed SERIES=folder ARGS='--models dlinear --sparsities 0.9 --batches 1'

Each model is trained on the illness series, dense and by gradual magnitude pruning to each sparsity; the checkpoints
stay in build/forecast_speed for the next time. All networks of a model are then timed in turns, at each batch size.
"""

from __future__ import annotations

import argparse
import gc
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.accuracy_cells import SERIES
from benchmarks.command import run_command
from benchmarks.forecast_contenders import compared
from benchmarks.forecast_tables import markdown
from benchmarks.machine import ROOT, provenance
from pals_core import train
from pals_core.checkpoint.tensor_file import replacing
from pals_core.data.table import Table, read_table

MODELS: dict[str, dict[str, Any]] = {
    "nstransformer": {},
    "dlinear": {},
    "patchtst": {},
    "itransformer": {},
    "transformer": {"d_model": 256, "d_ff": 1024},
}
ILLNESS = SERIES["illness"]
CHECKPOINTS = ROOT / "build" / "forecast_speed"


def trained(model: str, sparsity: float, epochs: int, table: Table, folder: Path = CHECKPOINTS) -> Path:
    """Return the checkpoint of a model at a sparsity, 0 for dense; trained unless it is there."""
    path = folder / f"{model}-{sparsity:g}-{epochs}.pals.safetensors"
    if not path.exists():
        method = {"name": "gmp", "sparsity": sparsity, "update_interval": ILLNESS.update_interval}
        spec = {
            "data": {**ILLNESS.data, "horizon": 24},
            "model": {"name": model} | MODELS[model],
            "method": method if sparsity else "dense",
            "training": {"epochs": epochs, "patience": epochs, "seed": 2020, "device": "cpu"},
        }
        # In place once it is whole, so that an interrupted training is done again.
        train(spec, table, folder / path.stem).path.rename(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", type=Path, help="folder with national_illness.csv")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.5, 0.8, 0.9, 0.95])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32, 512])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/forecast_speed.json"))
    parser.add_argument("--train-only", action="store_true", help="only make the checkpoints")
    arguments = parser.parse_args()
    console = Console()
    table = read_table(arguments.series / ILLNESS.file)
    report = provenance() | {"epochs": arguments.epochs, "rounds": arguments.rounds, "cases": []}
    for model in arguments.models:
        paths = {}
        for sparsity in (0.0, *arguments.sparsities):
            console.print(f"{model}: checkpoint at sparsity {sparsity:g}")
            paths[sparsity] = trained(model, sparsity, arguments.epochs, table)
        for batch in () if arguments.train_only else arguments.batches:
            console.print(f"{model}: batch {batch}")
            rows = compared(paths, table, batch, arguments.rounds)
            report["cases"].append({"model": model, "batch": batch, "contenders": rows})
            with replacing(arguments.output) as part:
                part.write_text(json.dumps(rounded(report), indent=1, allow_nan=False) + "\n")
            arguments.output.with_suffix(".md").write_text(markdown(report))
            gc.collect()
    if not arguments.train_only:
        console.print(markdown(report), markup=False)


def rounded(content: Any) -> Any:
    """Return plain data with five significant digits."""
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    if isinstance(content, list):
        return [rounded(value) for value in content]
    return float(f"{content:.5g}") if isinstance(content, float) else content


if __name__ == "__main__":
    run_command(main)
