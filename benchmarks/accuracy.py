"""Test error and sparsity of PALS on the illness series, against the published numbers.

    python -m benchmarks.accuracy national_illness.csv --seeds 2020 2021 2022 --output accuracy.json

NSTransformer at full size, 36 weeks in, 24 ahead, Δt = 5, γ = λ = 1.1. The published program, evaluated over all 170
test windows, has MSE 2.538 and MAE 0.989 at S = 0.54 (dense: MSE 2.598).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from pals_core.data.audit import profile_of
from pals_core.data.table import Table, read_table
from pals_core.errors import InvalidSpec
from pals_core.feasibility import check, resolve
from pals_core.spec import Spec
from pals_core.training.events import EpochEnd, Finished, Started
from pals_core.training.trainer import Trainer

PUBLISHED = {"mse": 2.538, "mae": 0.989, "sparsity": 0.54, "dense_mse": 2.598}
METHODS: dict[str, dict[str, Any]] = {
    "pals": {"name": "pals", "prune_rate_factor": 1.1, "loss_tolerance": 1.1, "update_interval": 5},
    "dense": {"name": "dense"},
}


def illness_spec(table: Table, method: str, seed: int) -> Spec:
    profile = profile_of(table)
    fields = {
        "data": {"input_len": 36, "label_len": 18, "horizon": 24},
        "model": "nstransformer",
        "method": METHODS[method],
        "training": {"seed": seed},
    }
    spec = resolve(Spec.model_validate(fields), profile)
    if problems := check(spec, profile):
        raise InvalidSpec(problems[0].message, problems)
    return spec


def train_once(table: Table, method: str, seed: int, *, device: str, threads: int | None) -> dict[str, Any]:
    """Train with one seed and return what it reached; seconds are of the training alone."""
    started_at = time.perf_counter()
    facts: dict[str, Any] = {"method": method, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(illness_spec(table, method, seed), table, Path(folder), device=device, threads=threads)
        for event in trainer.run():
            if isinstance(event, Started):
                facts |= {"device": event.device, "threads": event.threads}
            elif isinstance(event, EpochEnd):
                print(
                    f"  {method} {seed} epoch {event.epoch:2}: train {event.train_loss:.4f} "
                    f"validation {event.validation_loss:.4f} S {event.sparsity:.3f}{' best' if event.is_best else ''}",
                    flush=True,
                )
            elif isinstance(event, Finished):
                result = event.result
                facts |= {
                    "mse": result.metrics.mse,
                    "mae": result.metrics.mae,
                    "sparsity": result.sparsity,
                    "best_epoch": result.epoch,
                    "stopped_early": event.stopped_early,
                    "checkpoint_bytes": result.checkpoint_bytes,
                    "dense_bytes": result.dense_bytes,
                }
    return facts | {"seconds": round(time.perf_counter() - started_at, 1)}


def spread(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean, lowest, highest and standard deviation over the seeds."""
    summary = {}
    for name in ("mse", "mae", "sparsity", "seconds"):
        values = [run[name] for run in runs]
        summary[name] = {
            "mean": statistics.mean(values),
            "lowest": min(values),
            "highest": max(values),
            "standard_deviation": statistics.stdev(values) if len(values) > 1 else 0.0,
        }
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", type=Path, help="national_illness.csv")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2020, 2021, 2022])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["pals"])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    arguments = parser.parse_args()

    table = read_table(arguments.series)
    runs = [
        train_once(table, method, seed, device=arguments.device, threads=arguments.threads)
        for method in arguments.methods
        for seed in arguments.seeds
    ]
    summary = {method: spread([run for run in runs if run["method"] == method]) for method in arguments.methods}

    print(f"\n{'method':8} {'seed':>6} {'MSE':>8} {'MAE':>8} {'S':>6} {'epoch':>6} {'MB':>6} {'seconds':>8}")
    for run in runs:
        print(
            f"{run['method']:8} {run['seed']:6} {run['mse']:8.4f} {run['mae']:8.4f} {run['sparsity']:6.3f} "
            f"{run['best_epoch']:6} {run['checkpoint_bytes'] / 1e6:6.1f} {run['seconds']:8.1f}"
        )
    for method, values in summary.items():
        print(
            f"{method}: MSE {values['mse']['mean']:.4f} ± {values['mse']['standard_deviation']:.4f}, "
            f"MAE {values['mae']['mean']:.4f}, S {values['sparsity']['mean']:.3f}"
        )
    print(f"published: MSE {PUBLISHED['mse']}, MAE {PUBLISHED['mae']} at S {PUBLISHED['sparsity']}")
    if arguments.output is not None:
        report = {
            "machine": machine(),
            "published": PUBLISHED,
            "seeds": arguments.seeds,
            "runs": runs,
            "spread": summary,
        }
        arguments.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
