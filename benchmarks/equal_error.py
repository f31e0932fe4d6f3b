"""Whether what is faster is as good: test errors of the reference loop and of our trainer in fp32 and bf16.

    make equal-error SERIES=folder/of/the/series
    make equal-error SERIES=folder ARGS='--seeds 2020 2021'

Per seed, one whole job each, from the same initial weights, with the same batches, by the same rule and without early
stopping; the best epoch is the one of lowest validation loss among those that are sparse enough. Dropout is drawn
otherwise; the reference loop keeps Adam's moments of inactive weights, and decides on all validation windows. Two ways
are told apart when the differences of their errors, seed by seed, have a mean of more than two standard errors.
Runs one after the other; a finished seed is in the result file at once and not trained again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.command import run_command
from benchmarks.decision_windows import train
from benchmarks.machine import provenance
from benchmarks.reference_loop import ReferenceLoop
from benchmarks.speed_cases import CASES, SpeedCase, schedule_of
from benchmarks.standard_error import mean_of, told_apart
from pals_core.checkpoint.tensor_file import replacing
from pals_core.data.table import Table, read_table
from pals_core.spec import Spec
from pals_core.training.selection import BestEpoch, goal_of

REFERENCE = "reference"
WAYS = (REFERENCE, "fp32", "bf16")


def reference(spec: Spec, table: Table) -> dict[str, Any]:
    """Train as the published program does; return what the best epoch reached."""
    loop = ReferenceLoop(spec, table)
    with tempfile.TemporaryDirectory() as folder:
        trained = loop.run(Path(folder))
    schedule = schedule_of(spec, len(loop.train))
    best, reached = BestEpoch(goal_of(spec.method)), {}
    for epoch, (loss, mse) in enumerate(zip(trained.validation_losses, trained.test_losses, strict=True), start=1):
        steps = range(1, epoch * len(loop.train) + 1)
        updates = 0 if schedule is None else sum(map(schedule.is_update, steps))
        sparsity = trained.sparsities[updates - 1] if updates else 0.0
        if best.offer(epoch, loss, sparsity):
            reached = {"mse": mse, "sparsity": sparsity, "epoch": epoch}
    return reached


def ours(spec: Spec, table: Table) -> dict[str, Any]:
    """Train with pals_core's trainer; return the same."""
    _, finished = train(spec, table, lambda _: None)
    result = finished.result
    return {"mse": result.metrics.mse, "sparsity": result.sparsity, "epoch": result.epoch}


def spec_of(case: SpeedCase, table: Table, way: str, seed: int, epochs: int | None) -> Spec:
    """Return the whole job of a seed, which is never stopped early."""
    spec = case.spec(table, "pals", {"seed": seed, "precision": "fp32" if way == REFERENCE else way})
    count = epochs or spec.training.epochs
    return spec.model_copy(
        update={"training": spec.training.model_copy(update={"epochs": count, "patience": count + 1})}
    )


def summary(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means with standard errors, of each way and of the differences of two ways' MSE seed by seed."""
    told: dict[str, Any] = {}
    ways = [way for way in WAYS if all(way in seed for seed in seeds)]
    for way in ways:
        told[way] = {name: mean_of([seed[way][name] for seed in seeds]) for name in ("mse", "sparsity")}
    for other, way in combinations(ways, 2):
        differences = [seed[way]["mse"] - seed[other]["mse"] for seed in seeds]
        told[f"{way} less {other}"] = {"mse": mean_of(differences), "told_apart": told_apart(differences)}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", type=Path, help="folder with the series' files")
    parser.add_argument("--case", choices=list(CASES), default="illness")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2020, 2021, 2022, 2023, 2024])
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=list(WAYS))
    parser.add_argument("--epochs", type=int, help="default: the spec's")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/equal_error_<case>.json")
    arguments = parser.parse_args()
    case = CASES[arguments.case]
    output: Path = arguments.output or Path(f"benchmarks/results/equal_error_{case.name}.json")
    table = read_table(arguments.series / case.file)
    what = {"case": case.name, "epochs": arguments.epochs}
    done: list[dict[str, Any]] = []
    if output.exists():
        earlier = json.loads(output.read_text())
        if {name: earlier[name] for name in what} != what:
            parser.error(f"{output} is of other trainings; give another --output")
        done = earlier["seeds"]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as bars:
        bar = bars.add_task("trainings", total=len(arguments.ways) * len(arguments.seeds))
        for seed in arguments.seeds:
            found = next((one for one in done if one["seed"] == seed), {"seed": seed})
            missing = [way for way in arguments.ways if way not in found]
            bars.advance(bar, len(arguments.ways) - len(missing))
            if not missing:
                continue
            for way in missing:
                bars.update(bar, description=f"seed {seed}, {way}")
                spec = spec_of(case, table, way, seed, arguments.epochs)
                found[way] = (reference if way == REFERENCE else ours)(spec, table) | provenance()
                bars.advance(bar)
            done = [*(one for one in done if one["seed"] != seed), found]
            write(output, what, done)
    write(output, what, done)
    print(json.dumps(summary(done), indent=1))


def write(output: Path, what: dict[str, Any], seeds: list[dict[str, Any]]) -> None:
    """Write what was found so far."""
    report = what | {"summary": summary(seeds), "seeds": seeds}
    with replacing(output) as part:
        part.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    run_command(main)
