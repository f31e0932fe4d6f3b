"""How many points a second one supervisor brings into PostgreSQL, and what telling of each step costs a training.

    make event-rate

The rate is that of a supervisor that hears a loss for every step as fast as it can take them, until all are committed
to a server with durable settings. The cost is processor time, which other programs on the machine disturb little: of
the training's own process for saying what it says, and of the supervisor for hearing, writing and reporting it, each as
a share of the training's. Exits with 1 when a figure misses its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel
from sqlalchemy import func, select

from benchmarks.command import run_command
from benchmarks.durable_database import durable_database, surroundings
from benchmarks.queue_rows import DATASET, DATASET_ROW, LIMITS
from jobstore.database import Database
from jobstore.jobs import NewJob, create_job
from jobstore.leases import claim_next
from jobstore.settings import Settings
from jobstore.storage import ArtifactFolder
from jobstore.tables import DEFAULT_TENANT, Event, Job, Metric
from jobstore.workers import DeviceClass
from pals_core.checkpoint.tensor_file import replacing
from pals_core.data.audit import profile_of
from pals_core.data.table import Table
from pals_core.feasibility import resolve
from pals_core.spec import Spec
from pals_core.training.events import CheckpointSaved, Finished, Progress, StateSaved
from pals_core.training.progress import FLUSH_STEPS
from pals_core.training.trainer import Trainer
from tests.worker.first_words import STARTED
from worker.clock import lease_time
from worker.ownership import Ownership
from worker.protocol import FromChild, Suspended
from worker.supervise import Supervisor

POINTS_BAR = 5000.0
SHARE_BAR = 0.05
# The quickest steps there are, and those of a usual size.
SPECS: dict[str, dict[str, Any]] = {
    "dlinear": {"data": {"horizon": 24}, "model": "dlinear", "training": {"epochs": 6, "patience": 6}},
    "nstransformer 64": {
        "data": {"horizon": 24},
        "model": {"name": "nstransformer", "d_model": 64, "d_ff": 128, "heads": 4},
        "training": {"epochs": 2},
    },
}


class Recorded:
    """A training process that says these lines as fast as they are heard, and ends."""

    returncode = 0
    errors = ""
    pid = 0

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = iter([*lines, Suspended().model_dump_json()])
        self.finished_talking = False

    def send(self, line: BaseModel) -> None:
        """Take what the supervisor says."""

    def hear(self, timeout: float) -> BaseModel | None:  # noqa: ARG002 (there is no waiting for what is written down)
        for line in self._lines:
            return FromChild.validate_json(line)
        self.finished_talking = True
        return None

    def kill(self) -> None:
        """End, as it does by itself."""


class Store:
    """A job store on PostgreSQL, and supervisors that take jobs from it."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._artifacts = ArtifactFolder(settings.resolved_artifacts_url, new=True)
        settings.scratch_dir.mkdir(parents=True)
        with self._artifacts.writer("data") as writer:  # what DATASET names; the recorded trainings do not read it
            writer.commit()
        with database.write() as session:
            session.execute(DATASET, {"tenant": DEFAULT_TENANT, "sha256": "0" * 64})
            session.execute(DATASET_ROW, {"tenant": DEFAULT_TENANT})

    def supervise(self, lines: Sequence[str]) -> dict[str, float]:
        """Let a supervisor hear these lines to their end; seconds by the clock and of its processor, and rows."""
        with self._database.write() as session:
            spec = {"training": {"batch_size": 32}}
            job_id = create_job(session, NewJob(DEFAULT_TENANT, "rate", "ds_0", spec, LIMITS, DeviceClass.CPU)).id
        asked = lease_time()
        with self._database.write() as session:
            lease = claim_next(session, "wrk_rate", (DeviceClass.CPU,), lease_seconds=self._settings.lease_seconds)
        assert lease is not None
        assert lease.job_id == job_id
        supervisor = Supervisor(
            Ownership(lease, self._database, asked=asked, seconds=self._settings.lease_seconds),
            Recorded(lines),  # type: ignore[arg-type]
            artifacts=self._artifacts,
            settings=self._settings,
            scratch=self._settings.scratch_dir,
            threads=1,
            draining=threading.Event(),
            under_way=lambda: None,
        )
        began, processor = time.perf_counter(), time.process_time()
        supervisor.run()
        seconds, processor = time.perf_counter() - began, time.process_time() - processor
        with self._database.write() as session:
            points = session.scalar(select(func.count()).select_from(Metric).where(Metric.job_id == job_id)) or 0
            events = session.scalar(select(func.count()).select_from(Event).where(Event.job_id == job_id)) or 0
            session.delete(session.get_one(Job, job_id))
        return {"seconds": seconds, "processor_seconds": processor, "points": points, "events": events}


def losses(steps: int, *, at_once: int) -> list[str]:
    """The lines of a training that tells of its steps so many at once."""
    lines: list[BaseModel] = [STARTED.model_copy(update={"total_steps": steps, "steps_per_epoch": steps, "epochs": 1})]
    for last in range(at_once, steps + 1, at_once):
        values = tuple(1 / step for step in range(last - at_once + 1, last + 1))
        lines.append(Progress(step=last, epoch=1, train_losses=values, sparsity=0.5))
    return [line.model_dump_json() for line in lines]


def table(rows: int = 4000) -> Table:
    """Hourly waves with noise in seven columns."""
    noise = np.random.default_rng(7).normal(size=(rows, 7))
    values = np.sin(np.arange(rows)[:, None] / 12 + np.arange(7)) + 0.1 * noise
    times = pd.date_range("2024-01-01", periods=rows, freq="h").as_unit("us")
    return Table(times, values, tuple(f"c{column}" for column in range(7)), "h")


def train(spec: Spec, series: Table, out: TextIO) -> tuple[list[str], float, float]:
    """Train in this thread and say what a training process says: its lines, processor seconds in all and of saying."""
    lines, saying = [], 0.0
    with tempfile.TemporaryDirectory(prefix="pals-event-rate-") as folder:
        trainer = Trainer(resolve(spec, profile_of(series)), series, Path(folder), threads=1)
        began = time.thread_time()
        for event in trainer.run():
            if isinstance(event, CheckpointSaved | StateSaved | Finished):
                continue  # with files; they are no points
            before = time.thread_time()
            line = event.model_dump_json()
            out.write(line + "\n")
            out.flush()
            saying += time.thread_time() - before
            lines.append(line)
        return lines, time.thread_time() - began, saying


def costs(store: Store) -> dict[str, dict[str, float]]:
    """What telling of every step costs trainings."""
    torch.set_num_threads(1)
    series = table()
    found = {}
    for name, spec in SPECS.items():
        with Path(os.devnull).open("w") as out:
            lines, seconds, saying = train(Spec.model_validate(spec), series, out)
        heard = store.supervise(lines)
        found[name] = {
            "steps": heard["points"],
            "training_processor_seconds": round(seconds, 2),
            "share_of_saying": round(saying / seconds, 5),
            "share_of_the_supervisor": round(heard["processor_seconds"] / seconds, 5),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/event_rate.json"))
    arguments = parser.parse_args()
    with durable_database("event-rate") as (database, settings):
        store = Store(database, settings)
        rates = {
            f"{at_once} steps a line": store.supervise(losses(arguments.points, at_once=at_once))
            for at_once in (FLUSH_STEPS, 1)
        }
        content = surroundings(database) | {
            "rates": {
                name: {**heard, "points_per_second": round(heard["points"] / heard["seconds"])}
                for name, heard in rates.items()
            },
            "costs": costs(store),
        }
    with replacing(arguments.output) as part:
        part.write_text(json.dumps(content, indent=1) + "\n")
    for name, rate in content["rates"].items():
        print(f"{name:<20} {rate['points_per_second']:8,} points a second")
    for name, cost in content["costs"].items():
        print(
            f"{name:<20} {100 * cost['share_of_saying']:.2f} % of the training for saying, "
            f"{100 * cost['share_of_the_supervisor']:.2f} % beside it for the supervisor"
        )
    slow = [rate for rate in content["rates"].values() if rate["points_per_second"] < POINTS_BAR]
    dear = [
        cost
        for cost in content["costs"].values()
        if cost["share_of_saying"] + cost["share_of_the_supervisor"] > SHARE_BAR
    ]
    sys.exit(bool(slow or dear))


if __name__ == "__main__":
    run_command(main)
