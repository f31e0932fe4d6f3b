"""Trainings killed at random and resumed, compared byte for byte with trainings that were never interrupted.

    make resume
    make resume ARGS='--stops 20'

Every forecaster is paired with every method, on a small series and with small networks whose masks change at every
step. A training runs in a process of its own and saves its state after every step; at a random step the process is
killed (SIGKILL, whatever it is doing then) and another one goes on in the same folder from the newest state file. In
the end the folder must hold exactly the files of the uninterrupted training of the same pair.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.command import at_least, run_command
from benchmarks.machine import provenance
from benchmarks.resolved_spec import resolved
from pals_core.data.audit import profile_of
from pals_core.data.table import Table
from pals_core.feasibility import plan
from pals_core.spec import METHOD_SPECS, MODEL_SPECS, DenseMethodSpec, FrozenSpec, Spec, StaticMethodSpec
from pals_core.training.events import StateSaved
from pals_core.training.trainer import Trainer

SIZES = {"d_model": 8, "d_ff": 8, "heads": 2, "encoder_layers": 2, "decoder_layers": 1, "dropout": 0.2}
SIZES |= {"patch_len": 4, "stride": 2}
MOST_STOPS = 4  # of one training
# A kill this long after a state was saved falls into the next steps, or into the writing of the next state.
LONGEST_DELAY = 0.03

Pair = tuple[str, str]
SERVER = multiprocessing.get_context("forkserver")


def name_of(spec: type[FrozenSpec]) -> str:
    return str(spec.model_fields["name"].default)


PAIRS: tuple[Pair, ...] = tuple(product(map(name_of, MODEL_SPECS), map(name_of, METHOD_SPECS)))


def series() -> Table:
    """Return three daily columns of 160 steps: a wave, a rising wave, noise."""
    steps = np.arange(160)
    values = np.stack((10 + np.sin(steps / 7), 200 + steps / 20 + 5 * np.cos(steps / 3), 0 * steps), axis=1)
    values += 0.1 * np.random.default_rng(5).normal(size=values.shape)
    times = pd.date_range("2021-03-01", periods=len(steps), freq="D").as_unit("us")
    return Table(times, values, ("calm", "rising", "noise"), "D")


def spec_of(pair: Pair, table: Table) -> Spec:
    """Return a training of four epochs of five steps."""
    model, method = pair
    known = next(spec for spec in MODEL_SPECS if name_of(spec) == model).model_fields
    updating = method not in (name_of(DenseMethodSpec), name_of(StaticMethodSpec))
    fields = {
        "data": {"input_len": 12, "label_len": 6, "horizon": 4},
        "model": {"name": model} | {name: size for name, size in SIZES.items() if name in known},
        "method": {"name": method} | ({"update_interval": 1} if updating else {}),
        "training": {"epochs": 4, "batch_size": 19, "learning_rate": 0.01, "device": "cpu"},
    }
    return resolved(fields, table)


@dataclass
class Campaign:
    """What was killed, and what came of it."""

    threads: int
    chance: random.Random
    stops: int = 0
    runs: int = 0
    interrupted_writes: int = 0
    stops_of_pair: Counter[str] = field(default_factory=Counter)
    stops_of_step: Counter[int] = field(default_factory=Counter)
    mismatches: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.table = series()
        self.uninterrupted: dict[Pair, dict[str, str]] = {}  # digests of its files

    def interrupt(self, pair: Pair, most_stops: int) -> int:
        """Train once, killed up to `most_stops` times, and compare; returns how often it was killed."""
        spec = spec_of(pair, self.table)
        if pair not in self.uninterrupted:
            with tempfile.TemporaryDirectory() as name:
                self.attempt(spec, Path(name), None)
                self.uninterrupted[pair] = digests(Path(name))
        expected = self.uninterrupted[pair]
        wanted = self.chance.randint(1, min(MOST_STOPS, most_stops))
        steps = plan(spec, profile_of(self.table)).total_steps
        planned = sorted(self.chance.sample(range(1, steps), wanted))
        stopped_at: list[int] = []
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            while True:
                step = self.attempt(spec, folder, planned.pop(0) if planned else None)
                if step is None:
                    break
                stopped_at.append(step)
                self.interrupted_writes += any(folder.glob(".*.part"))
            found = digests(folder)
        self.runs += 1
        self.stops += len(stopped_at)
        self.stops_of_pair[" ".join(pair)] += len(stopped_at)
        self.stops_of_step.update(stopped_at)
        if found != expected:
            different = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            self.mismatches.append({"pair": " ".join(pair), "stopped_at": stopped_at, "files": different})
        return len(stopped_at)

    def attempt(self, spec: Spec, folder: Path, stop_after: int | None) -> int | None:
        """Train in a process from the newest state in `folder`, if there is one; kill it once that step is saved.

        Returns the step of the last state told, or None when the training ended first. Raises RuntimeError when the
        training failed.
        """
        heard, told = SERVER.Pipe(duplex=False)
        process = SERVER.Process(target=train, args=(told, spec, self.table, folder, self.threads), daemon=True)
        process.start()
        told.close()
        step, is_killed = 0, False
        try:
            while True:
                message = heard.recv()
                if message is None:
                    return None
                if isinstance(message, str):
                    raise RuntimeError(f"a training of {spec.model.name} {spec.method.name} failed: {message}")
                step = message
                if stop_after is not None and step >= stop_after and not is_killed:
                    time.sleep(self.chance.uniform(0, LONGEST_DELAY))
                    process.kill()
                    is_killed = True
        except KeyboardInterrupt:
            process.kill()
            raise
        except EOFError:
            if is_killed:
                return step
            raise RuntimeError(f"a training of {spec.model.name} {spec.method.name} ended by itself") from None
        finally:
            heard.close()
            process.join()


def train(told: Connection, spec: Spec, table: Table, folder: Path, threads: int) -> None:
    """Train from the newest state in `folder`; tell the step of each state saved, None at the end, or what failed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked for this one
    newest = max(folder.glob("state-*.safetensors"), default=None)
    trainer = Trainer(spec, table, folder, threads=threads, resume_from=newest, state_interval_seconds=0.0)
    try:
        for event in trainer.run():
            if isinstance(event, StateSaved):
                told.send(event.step)
        told.send(None)
    except Exception as error:
        told.send(f"{type(error).__name__}: {error}")


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file in a folder, by its path within."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def in_turn(pairs: Sequence[Pair], chance: random.Random) -> Iterator[Pair]:
    """Yield all pairs again and again, in a new order each time."""
    for _ in cycle((None,)):
        yield from chance.sample(pairs, len(pairs))


def kill_and_resume(pairs: Sequence[Pair], stops: int, *, seed: int, threads: int) -> Campaign:
    """Interrupt trainings of `pairs` in turn until there were `stops` stops."""
    # The optimiser would import the second one in every process.
    SERVER.set_forkserver_preload([Trainer.__module__, "torch._dynamo"])
    chance = random.Random(seed)
    campaign = Campaign(threads, chance)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as bars:
        bar = bars.add_task("stops", total=stops)
        for pair in in_turn(pairs, chance):
            if campaign.stops >= stops:
                break
            bars.advance(bar, campaign.interrupt(pair, stops - campaign.stops))
    return campaign


def report(campaign: Campaign, *, seed: int, seconds: float) -> dict[str, Any]:
    return provenance() | {
        "seed": seed,
        "threads": campaign.threads,
        "stops": campaign.stops,
        "interrupted_writes": campaign.interrupted_writes,
        "trainings": campaign.runs,
        "pairs": len(campaign.stops_of_pair),
        "mismatches": campaign.mismatches,
        "stops_of_pair": dict(sorted(campaign.stops_of_pair.items())),
        "stops_after_step": {str(step): count for step, count in sorted(campaign.stops_of_step.items())},
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=at_least(1), default=200)
    parser.add_argument("--seed", type=int, default=2020, help="of the stops")
    parser.add_argument("--threads", type=at_least(1), default=1)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/resume.json"))
    arguments = parser.parse_args()
    began = time.perf_counter()
    campaign = kill_and_resume(PAIRS, arguments.stops, seed=arguments.seed, threads=arguments.threads)
    told = report(campaign, seed=arguments.seed, seconds=time.perf_counter() - began)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(told, indent=1) + "\n")
    print(
        f"{told['stops']} stops of {told['trainings']} trainings of {told['pairs']} pairs of forecaster and method "
        f"({len(PAIRS)} there are): {len(told['mismatches'])} ended with other bytes"
    )
    for mismatch in told["mismatches"]:
        print(f"  {mismatch['pair']}, stopped after steps {mismatch['stopped_at']}: {', '.join(mismatch['files'])}")
    if told["mismatches"]:
        raise SystemExit(1)


if __name__ == "__main__":
    run_command(main)
