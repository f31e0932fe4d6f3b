"""Test error and sparsity of dense, PALS and GraNet trainings over a grid of forecasters, horizons and seeds.

    make accuracy SERIES=folder/of/the/series
    make accuracy SERIES=folder ARGS='--hours 1'
    make accuracy SERIES=folder ARGS='--dataset etth1 --models dlinear nstransformer'

Every cell is trained with the library alone and measured over every test window. A finished cell is in the result file
at once, and running again goes on with the others; `--hours` starts no cell after that time. GraNet is given the
sparsity that PALS's best checkpoint of the same seed reached. Nothing is chosen by the test part.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.accuracy_cells import CONTENDERS, METHODS, SERIES, Cell, cells
from benchmarks.accuracy_results import Results
from benchmarks.accuracy_tables import markdown
from benchmarks.command import at_least, run_command
from benchmarks.machine import provenance
from benchmarks.resolved_spec import resolved
from benchmarks.seasonal_naive import seasonal_naive
from pals_core.data.audit import profile_of
from pals_core.data.table import Table, read_table
from pals_core.errors import ErrorCode, TrainingFailed
from pals_core.feasibility import plan
from pals_core.spec import LearningRateSchedule, Precision
from pals_core.training.events import EpochEnd, Finished, Started
from pals_core.training.events import Progress as Losses
from pals_core.training.trainer import Trainer

RESULTS = Path("benchmarks/results")


def train_cell(
    fields: Mapping[str, Any], table: Table, *, device: str, threads: int | None, bars: Progress
) -> dict[str, Any]:
    """Train once; return the spec asked for, what could be and what was reached. Seconds are of the training alone."""
    spec = resolved(fields, table)
    planned = plan(spec, profile_of(table))
    facts: dict[str, Any] = {
        "spec": fields,
        "test_windows": planned.windows.test,
        "updates": planned.updates,
        "reachable_sparsity": [round(sparsity, 4) for sparsity in planned.reachable_sparsity],
    }
    bar = bars.add_task("  this training", total=planned.total_steps, left="")
    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(spec, table, Path(folder), device=device, threads=threads, save_states=False)
            for event in trainer.run():
                if isinstance(event, Started):
                    facts |= {"device": event.device, "threads": event.threads, "precision": event.precision}
                elif isinstance(event, Losses):
                    bars.update(bar, completed=event.step)
                elif isinstance(event, EpochEnd):
                    facts["epochs"] = event.epoch
                elif isinstance(event, Finished):
                    facts |= {
                        "stopped_early": event.stopped_early,
                        "seconds": round(time.perf_counter() - began, 1),
                        "result": event.result.model_dump(mode="json"),
                    }
    except TrainingFailed as failure:
        if failure.code is ErrorCode.DEVICE_UNAVAILABLE:
            raise
        facts["error"] = failure.message
    finally:
        bars.remove_task(bar)
    return facts


def run_grid(
    chosen: list[Cell],
    table: Table,
    results: Results,
    *,
    run: Mapping[str, Any],
    training: Mapping[str, Any],
    device: str,
    threads: int | None,
    deadline: float | None,
) -> None:
    """Train every cell that is not in `results` yet, in order, starting none after `deadline` (of time.monotonic).

    Another run may fill the same result file; what it has finished is not trained again. Raises TrainingFailed when the
    device asked for is not there.
    """
    trained = known = 0
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    ) as bars:
        bar = bars.add_task("cells", total=len(chosen), left="")
        for position, cell in enumerate(chosen):
            results.reload()
            bars.update(bar, completed=position, left=_time_left(results.expected_seconds(chosen[position:])))
            target = None if cell.needs is None else results.sparsity(cell.needs)
            if cell.needs is not None and target is None:
                bars.console.print(f"{_name(cell)}: left out, PALS has no result to compare with")
                continue
            fields = cell.spec(target, training)
            if results.is_done(cell, fields):
                known += 1
                continue
            if deadline is not None and time.monotonic() >= deadline:
                bars.console.print("the time is over; run again to go on")
                break
            facts = train_cell(fields, table, device=device, threads=threads, bars=bars)
            results.add(cell, facts, run)
            trained += 1
            bars.console.print(f"{_name(cell)}: {_outcome(facts)}")
        else:
            bars.update(bar, completed=len(chosen), left="")
        bars.console.print(f"{trained} trained; {known} of the chosen ones were in {results.path} already")


def _name(cell: Cell) -> str:
    return " ".join(str(part) for part in cell.key.values())


def _outcome(facts: Mapping[str, Any]) -> str:
    if "result" not in facts:
        return str(facts["error"])
    result = facts["result"]
    return (
        f"MSE {result['metrics']['mse']:.4f} MAE {result['metrics']['mae']:.4f} S {result['sparsity']:.3f} "
        f"at epoch {result['epoch']} of {facts['epochs']} in {facts['seconds']} s"
    )


def _time_left(seconds: float | None) -> str:
    return "" if seconds is None else f"about {seconds / 3600:.1f} h left"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", type=Path, help="folder with the series' files")
    parser.add_argument("--dataset", choices=list(SERIES), default="illness")
    parser.add_argument("--horizons", type=at_least(1), nargs="+", help="default: all of the dataset")
    parser.add_argument("--models", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=at_least(0), nargs="+", default=[2020, 2021, 2022])
    parser.add_argument(
        "--width", type=at_least(1), default=256, help="d_model of all but NSTransformer; d_ff is four times it"
    )
    parser.add_argument("--epochs", type=at_least(1), help="default: the spec's")
    parser.add_argument("--precision", choices=[choice.value for choice in Precision], help="default: the spec's")
    parser.add_argument(
        "--schedule",
        choices=[choice.value for choice in LearningRateSchedule],
        help="of the learning rate; default: the spec's",
    )
    parser.add_argument("--hours", type=float, help="start no training after so many hours")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=at_least(1))
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/accuracy_<dataset>[_<schedule>].json")
    arguments = parser.parse_args()

    deadline = None if arguments.hours is None else time.monotonic() + 3600 * arguments.hours
    series = SERIES[arguments.dataset]
    table = read_table(arguments.series / series.file)
    training = {
        name: value
        for name, value in (
            ("epochs", arguments.epochs),
            ("precision", arguments.precision),
            ("schedule", arguments.schedule),
        )
        if value is not None
    }
    name = "_".join(["accuracy", series.name, *([arguments.schedule] if arguments.schedule else [])])
    recipe = {"width": arguments.width} | training
    results = Results(arguments.output or RESULTS / f"{name}.json", series.name, recipe)
    horizons = arguments.horizons or series.horizons
    for horizon in horizons:
        data = resolved({"data": {**series.data, "horizon": horizon}}, table).data
        results.add_naive(horizon, asdict(seasonal_naive(table, data)))
    chosen = list(
        cells(
            series,
            horizons=horizons,
            models=arguments.models,
            methods=arguments.methods,
            seeds=arguments.seeds,
            width=arguments.width,
        )
    )
    run_grid(
        chosen,
        table,
        results,
        run=provenance(),
        training=training,
        device=arguments.device,
        threads=arguments.threads,
        deadline=deadline,
    )
    print(markdown(results.content))


if __name__ == "__main__":
    run_command(main, when_interrupted="What was finished is kept: run it again to go on.")
