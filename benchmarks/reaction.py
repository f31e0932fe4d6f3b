"""How soon the service reacts, on both stacks and with the settings it comes with.

    make reaction
    make reaction ARGS='--repeats 3 --kills 1 --stacks production'

From POST to the first step of the training; from a cancellation, a pause, a resumption and a worker's SIGTERM to what
was asked for; and from the `kill -9` of a worker to the first step on another one. Seconds are those of a user who asks
every 10 ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.command import run_command
from benchmarks.machine import provenance
from jobstore.database import now
from jobstore.tables import Job
from pals_core.checkpoint.tensor_file import replacing
from tests.chaos.cluster import Cluster, embedded, production
from tests.chaos.load import LENGTHS, table
from tests.eventually import eventually

STACKS = {"embedded": embedded, "production": production}
WORKERS = 2
POLL_SECONDS = 0.01
WARM_SECONDS = 8.0  # in which the next training process has imported torch
# A training without an end, whose steps take some milliseconds.
SPEC = {
    "data": LENGTHS,
    "model": {"name": "nstransformer", "d_model": 64, "d_ff": 128, "heads": 4},
    "training": {"epochs": 10_000, "patience": 10_000},
}


class Stopwatch:
    """A user with a stop-watch, the only one of an idle service with two workers."""

    def __init__(self, cluster: Cluster, http: httpx.Client) -> None:
        self._cluster = cluster
        self._http = http
        self.seconds: dict[str, list[float]] = {}
        self._dataset_id = self._upload()

    def first_step_and_cancel(self) -> None:
        """POST a job until it trains, then cancel it."""
        time.sleep(WARM_SECONDS)
        with self._timed("POST to first step"):
            job_id = self._post()
            self._until_it_steps(job_id, after=0)
        self._cancel(job_id)

    def pause_and_resume(self) -> None:
        """Pause a training, end its worker, and resume it: it goes on at the other one."""
        job_id = self._training()
        worker = self._worker_of(job_id)
        with self._timed("pause to paused"):
            self._ask(job_id, "pause")
            self._until(lambda: self._job(job_id)["status"] == "paused")
        step = self._job(job_id)["progress"]["step"]
        worker.terminate()
        self._until(lambda: has_ended(worker))
        with self._timed("resume to next step, on another worker"):
            self._ask(job_id, "resume")
            self._until_it_steps(job_id, after=step)
        self._cancel(job_id)

    def drain(self) -> None:
        """SIGTERM to the worker of a training, until it has ended, and until the training goes on at the other."""
        job_id = self._training()
        worker, step = self._worker_of(job_id), self._job(job_id)["progress"]["step"]
        with self._timed("SIGTERM to next step, on another worker"):
            with self._timed("SIGTERM to worker's end"):
                worker.terminate()
                self._until(lambda: has_ended(worker))
            self._until_it_steps(job_id, after=step)
        self._cancel(job_id)

    def kill(self) -> None:
        """`kill -9` of the worker of a training, until it goes on at the other."""
        job_id = self._training()
        worker = self._worker_of(job_id)
        attempt = self._job(job_id)["attempt"]
        with self._timed("kill -9 of worker to next step"):
            worker.kill()
            lease_left = self._lease_left(job_id)
            self._until(lambda: self._job(job_id)["attempt"] > attempt)
            self._until_it_steps(job_id, after=(self._job(job_id)["resumed_from"] or {"step": 0})["step"])
        settings = self._cluster.settings
        ended = lease_left + settings.lease_grace_seconds
        self.seconds.setdefault("end of lease and grace to next step", []).append(
            self.seconds["kill -9 of worker to next step"][-1] - ended
        )
        self._cancel(job_id)

    def _upload(self) -> str:
        answer = self._http.post("/v1/datasets", params={"name": "reaction"}, content=table()).raise_for_status()
        dataset_id = str(answer.json()["id"])
        self._until(lambda: self._http.get(f"/v1/datasets/{dataset_id}").json()["status"] == "ready")
        return dataset_id

    def _post(self) -> str:
        answer = self._http.post("/v1/jobs", json={"dataset_id": self._dataset_id, "name": "reaction", "spec": SPEC})
        return str(answer.raise_for_status().json()["id"])

    def _training(self) -> str:
        """A job that has trained for some seconds while both workers ran."""
        self._cluster.start_what_died()
        self._until(lambda: len(self._cluster.workers()) == WORKERS)
        time.sleep(WARM_SECONDS)
        job_id = self._post()
        self._until_it_steps(job_id, after=0)
        time.sleep(2)
        return job_id

    def _cancel(self, job_id: str) -> None:
        time.sleep(1)
        with self._timed("cancel to cancelled"):
            self._ask(job_id, "cancel")
            self._until(lambda: self._job(job_id)["status"] == "cancelled")

    def _ask(self, job_id: str, what: str) -> None:
        self._http.post(f"/v1/jobs/{job_id}/{what}").raise_for_status()

    def _job(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = self._http.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        return job

    def _worker_of(self, job_id: str) -> psutil.Process:
        training = next(process for process, job in self._cluster.trainings().items() if job == job_id)
        worker = training.parent()
        assert worker is not None
        return worker

    def _lease_left(self, job_id: str) -> float:
        with self._cluster.database.read() as session:
            expires = session.get_one(Job, job_id).lease_expires_at
            assert expires is not None
            return (expires - now(session)).total_seconds()

    def _until_it_steps(self, job_id: str, after: int) -> None:
        def steps() -> bool:
            job = self._job(job_id)
            return job["status"] == "running" and bool(job["progress"]) and job["progress"]["step"] > after

        self._until(steps)

    def _until(self, condition: Callable[[], bool]) -> None:
        eventually(condition, "the service reacts", 180, pause=POLL_SECONDS)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds.setdefault(what, []).append(time.monotonic() - began)


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def summary(seconds: list[float]) -> dict[str, Any]:
    return {
        "runs": len(seconds),
        "median": round(statistics.median(seconds), 3),
        "lowest": round(min(seconds), 3),
        "highest": round(max(seconds), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stacks", nargs="+", choices=list(STACKS), default=list(STACKS))
    parser.add_argument("--repeats", type=int, default=10, help="of each reaction but the slowest")
    parser.add_argument("--kills", type=int, default=3, help="of a worker; each takes more than a minute")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/reaction.json"))
    arguments = parser.parse_args()
    content = provenance()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as bars:
        for name in arguments.stacks:
            with (
                tempfile.TemporaryDirectory(prefix="pals-reaction-") as folder,
                STACKS[name](Path(folder), workers=WORKERS, settings={}) as cluster,
                httpx.Client(base_url=cluster.base_url, timeout=30) as http,
            ):
                settings = cluster.settings
                content["lease_seconds"] = settings.lease_seconds
                content["grace_seconds"] = settings.lease_grace_seconds
                watch = Stopwatch(cluster, http)
                rounds = {
                    watch.first_step_and_cancel: arguments.repeats,
                    watch.pause_and_resume: (arguments.repeats + 1) // 2,
                    watch.drain: (arguments.repeats + 1) // 2,
                    watch.kill: arguments.kills,
                }
                bar = bars.add_task(name, total=sum(rounds.values()))
                for reaction, count in rounds.items():
                    for _ in range(count):
                        reaction()
                        bars.advance(bar)
                content[name] = {what: summary(seconds) for what, seconds in watch.seconds.items()}
            with replacing(arguments.output) as part:
                part.write_text(json.dumps(content, indent=1) + "\n")
    for name in arguments.stacks:
        for what, figures in content[name].items():
            print(
                f"{name:>10}  {what:<42} {figures['median']:8.3f} s ({figures['lowest']:g} to {figures['highest']:g})"
            )


if __name__ == "__main__":
    run_command(main)
