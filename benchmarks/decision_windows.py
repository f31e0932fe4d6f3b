"""Whether a decision on a few validation windows is the decision on all of them, and leads to the same outcome.

    make decision-windows SERIES=folder/of/the/series
    make decision-windows SERIES=… ARGS='--data illness --width 512 --output illness.json'

Per seed, ETTh1 96 → 96 (or illness 36 → 24) is trained twice with PALS: once deciding by the default number of evenly
spread windows, once by all. In the first one every decision is also made on all windows, on the same weights, along a
record of best losses of its own; the share of equal moves counts those. Runs one after the other; a finished seed is
in the result file at once and not trained again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from benchmarks.accuracy_cells import SERIES
from benchmarks.command import at_least, run_command
from benchmarks.machine import provenance
from benchmarks.resolved_spec import resolved
from benchmarks.standard_error import mean_of
from pals_core.checkpoint.tensor_file import replacing
from pals_core.data.audit import profile_of
from pals_core.data.table import Table, read_table
from pals_core.data.windows import WindowSet
from pals_core.feasibility import plan
from pals_core.sparsity.decision import Best, Move, decide, updated_best
from pals_core.spec import PalsMethodSpec, Spec
from pals_core.training.events import Finished, MaskUpdate, TrainingEvent
from pals_core.training.events import Progress as Losses
from pals_core.training.forward import ForwardPass
from pals_core.training.trainer import Trainer
from pals_core.training.validation import all_windows, mean_squared_error

RESULTS = Path("benchmarks/results")
FEW: int = PalsMethodSpec.model_fields["decision_windows"].default
TOLERANCE: float = PalsMethodSpec.model_fields["loss_tolerance"].default
LETTERS = {Move.SHRINK: "s", Move.EXPAND: "e", Move.STABLE: "="}


@contextmanager
def measured_on_all_as_well(losses: list[float]) -> Iterator[None]:
    """Append to `losses` the loss over all windows whenever the trainer measures it, in training, over a few."""

    def watched(forward: ForwardPass, windows: WindowSet, indices: Tensor) -> float:
        if len(indices) < len(windows):
            losses.append(mean_squared_error(forward, windows, all_windows(windows, indices.device)))
        return mean_squared_error(forward, windows, indices)

    with patch("pals_core.training.loop.mean_squared_error", watched):
        yield


def train(spec: Spec, table: Table, hear: Callable[[TrainingEvent], None]) -> tuple[list[MaskUpdate], Finished]:
    """Return a training's decisions and its end."""
    updates: list[MaskUpdate] = []
    with tempfile.TemporaryDirectory() as folder:
        for event in Trainer(spec, table, Path(folder), save_states=False).run():
            hear(event)
            if isinstance(event, MaskUpdate):
                updates.append(event)
            elif isinstance(event, Finished):
                return updates, event
    raise RuntimeError("the training ended without a result")


def equal_moves(updates: list[MaskUpdate], losses: list[float], method: PalsMethodSpec) -> int:
    """Return how many of the moves are those that `losses`, one for each update, would have led to."""
    best: Best | None = None
    equal = 0
    for update, loss in zip(updates, losses, strict=True):
        equal += decide(loss, update.sparsity_before, best, method) is update.move
        best = updated_best(loss, update.sparsity_before, best)
    return equal


def outcome(updates: list[MaskUpdate], finished: Finished) -> dict[str, Any]:
    return {
        "moves": "".join(LETTERS[update.move] for update in updates),
        "sparsity": finished.result.sparsity,
        "mse": finished.result.metrics.mse,
        "mae": finished.result.metrics.mae,
        "epoch": finished.result.epoch,
    }


def study(fields: dict[str, Any], table: Table, hear: Callable[[TrainingEvent], None]) -> dict[str, Any]:
    """Train one seed both ways."""
    spec = resolved(fields, table)
    method = spec.method
    if not isinstance(method, PalsMethodSpec):
        raise TypeError(f"{method.name} makes no decisions")
    losses: list[float] = []
    with measured_on_all_as_well(losses):
        updates, finished = train(spec, table, hear)
    everything = method.model_copy(update={"decision_windows": plan(spec, profile_of(table)).windows.validation})
    all_updates, all_finished = train(spec.model_copy(update={"method": everything}), table, hear)
    return {
        "seed": spec.training.seed,
        "decisions": len(updates),
        "equal_moves": equal_moves(updates, losses, method),
        "few": outcome(updates, finished),
        "all": outcome(all_updates, all_finished),
    }


def summary(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the share of equal moves, and means with standard errors of the outcomes and their paired difference."""
    result: dict[str, Any] = {
        "share_of_equal_moves": sum(seed["equal_moves"] for seed in seeds) / sum(seed["decisions"] for seed in seeds)
    }
    for name in ("mse", "sparsity"):
        few, of_all = ([seed[way][name] for seed in seeds] for way in ("few", "all"))
        difference = [one - other for one, other in zip(few, of_all, strict=True)]
        result[name] = {"few": mean_of(few), "all": mean_of(of_all), "difference": mean_of(difference)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", type=Path, help="folder with the series' files")
    parser.add_argument("--data", choices=list(SERIES), default="etth1")
    parser.add_argument("--windows", type=at_least(1), default=FEW, help="validation windows that decide")
    parser.add_argument(
        "--loss-tolerance", type=float, default=TOLERANCE, help="λ; near 1 fewer updates shrink the network"
    )
    parser.add_argument("--seeds", type=at_least(0), nargs="+", default=[2020, 2021, 2022, 2023, 2024])
    parser.add_argument("--width", type=at_least(1), default=64, help="d_model; d_ff is four times as wide")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/decision_windows_<data>_<λ>.json")
    arguments = parser.parse_args()
    output: Path = arguments.output or RESULTS / f"decision_windows_{arguments.data}_{arguments.loss_tolerance:g}.json"
    series = SERIES[arguments.data]
    table = read_table(arguments.series / series.file)
    model = {"name": "nstransformer", "d_model": arguments.width, "d_ff": 4 * arguments.width}
    method = {
        "name": "pals",
        "loss_tolerance": arguments.loss_tolerance,
        "update_interval": series.update_interval,
        "decision_windows": arguments.windows,
    }
    fields = {"data": {**series.data, "horizon": series.horizons[0]}, "model": model, "method": method}

    done: list[dict[str, Any]] = []
    if output.exists():
        earlier = json.loads(output.read_text())
        if earlier["fields"] != fields:
            parser.error(f"{output} is of another study: {earlier['fields']}; give another --output")
        done = earlier["seeds"]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as bars:
        for seed in arguments.seeds:
            if any(study["seed"] == seed for study in done):
                continue
            of_seed = fields | {"training": {"seed": seed}}
            steps = 2 * plan(resolved(of_seed, table), profile_of(table)).total_steps
            bar = bars.add_task(f"seed {seed}, both ways", total=steps)

            def hear(event: TrainingEvent, bar: Any = bar) -> None:
                if isinstance(event, Losses):
                    bars.advance(bar, len(event.train_losses))

            done.append(study(of_seed, table, hear))
            bars.remove_task(bar)
            what = {"series": series.name, "windows": arguments.windows, "fields": fields}
            report = provenance() | what | {"summary": summary(done), "seeds": done}
            with replacing(output) as part:
                part.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    print(json.dumps(summary(done), indent=1))


if __name__ == "__main__":
    run_command(main)
