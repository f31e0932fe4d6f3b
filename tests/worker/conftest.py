"""A job store with datasets and jobs, and real worker processes that train them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest
from sqlalchemy.orm import Session

from jobstore import schema
from jobstore.artifacts import new_artifact
from jobstore.control import cancel
from jobstore.database import Database, open_database
from jobstore.datasets import create_dataset, finish_audit
from jobstore.events import events_after
from jobstore.jobs import NewJob, create_job, get_job, lock
from jobstore.lifecycle import FINAL_STATUSES, JobStatus
from jobstore.scratch import LOCK
from jobstore.settings import Settings
from jobstore.states import SavedState, states_of
from jobstore.storage import ArtifactFolder
from jobstore.tables import DEFAULT_TENANT, Event, Job
from jobstore.wakeups import Bell
from jobstore.workers import DeviceClass, alive
from pals_core.data.audit import audit_table
from pals_core.feasibility import resolve
from pals_core.spec import Spec
from tests.core.training.small_training import best_checkpoint, make_spec, series, trained
from tests.eventually import eventually

__all__ = ["best_checkpoint", "make_spec", "series", "trained"]

Result = TypeVar("Result")
PATIENCE = 90.0
LONG = {"epochs": 10_000, "patience": 10_000}


@dataclass
class RunningWorker:
    process: subprocess.Popen[bytes]
    log: Path

    def training_child(self) -> psutil.Process:
        """The training process: the older child, since the next one already stands by."""
        children = eventually(
            lambda: [c for c in psutil.Process(self.process.pid).children() if "worker.train" in " ".join(c.cmdline())],
            "the worker has children",
            PATIENCE,
        )
        return min(children, key=lambda child: child.create_time())

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def freeze(self, stack: Stack) -> None:
        """Stop the worker between two transactions: nobody can take SQLite's write lock from a frozen process."""

        def frozen() -> bool:
            self.process.send_signal(signal.SIGSTOP)
            eventually(lambda: psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED, "it stops", PATIENCE)
            if stack.is_locked():
                self.process.send_signal(signal.SIGCONT)
                return False
            return True

        eventually(frozen, "the worker is frozen outside a transaction", PATIENCE)


@dataclass
class Stack:
    """One job store with its own folder, and the workers started on it."""

    environment: dict[str, str]
    settings: Settings
    database: Database
    workers: list[RunningWorker] = field(default_factory=list)

    @property
    def scratch(self) -> Path:
        """The folder of this process, which plays a worker."""
        folder = self.settings.scratch_dir / "played"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def is_locked(self) -> bool:
        """Whether somebody holds the write lock of the embedded database."""
        with closing(sqlite3.connect(self.settings.root / "pals.db", timeout=0.1, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            return False

    def in_scratch(self) -> list[Path]:
        """What trainings have left in the workers' folders."""
        folders = (folder for folder in self.settings.scratch_dir.iterdir() if folder.is_dir())
        return [path for folder in folders for path in folder.iterdir() if path.name != LOCK]

    def add_dataset(self, steps: int = 400, columns: int = 2, *, explodes: bool = False) -> str:
        """Upload a daily sine with noise, as the API would; one that `explodes` ends in values beyond float32."""
        generator = np.random.default_rng(7)
        start = np.datetime64("2020-01-01")
        lines = ["date," + ",".join(f"c{i}" for i in range(columns))]
        for step in range(steps):
            values = np.sin(step / 7 + np.arange(columns)) + 0.1 * generator.standard_normal(columns)
            if explodes:
                values = np.full(columns, 0.0 if step < 0.7 * steps else 1e200)
            lines.append(f"{start + step}," + ",".join(f"{value:.6g}" for value in values))
        artifacts = ArtifactFolder(self.settings.resolved_artifacts_url, new=True)
        with self.database.write() as session:
            artifact = new_artifact(session, DEFAULT_TENANT, "datasets")
            artifact_id, key = artifact.id, artifact.key
        with artifacts.writer(key) as writer:
            writer.write("\n".join(lines).encode())
            blob = writer.commit()
        with self.database.write() as session:
            dataset = create_dataset(
                session,
                tenant_id=DEFAULT_TENANT,
                name="sine",
                media_type="text/csv",
                artifact_id=artifact_id,
                blob=blob,
                audit_seconds=60,
            )
            profile = audit_table(artifacts.path(key))
            finish_audit(session, dataset.id, profile=profile.model_dump(mode="json"), error=None)
            self.profile = profile
            self.dataset_key = key
            return dataset.id

    def add_job(
        self,
        dataset_id: str,
        *,
        training: dict[str, Any] | None = None,
        model: dict[str, Any] | None = None,
        method: dict[str, Any] | str = "pals",
        input_len: int = 8,
        ring: bool = True,
        **limits: Any,
    ) -> str:
        """Queue a small training and ring the bell, as the API would."""
        spec = Spec.model_validate(
            {
                "data": {"horizon": 4, "input_len": input_len},
                "model": model or {"name": "dlinear", "moving_avg": 3},
                "method": method,
                "training": {"epochs": 2, **(training or {})},
            }
        )
        with self.database.write() as session:
            job = create_job(
                session,
                NewJob(
                    tenant_id=DEFAULT_TENANT,
                    name="test",
                    dataset_id=dataset_id,
                    spec=resolve(spec, self.profile).model_dump(mode="json"),
                    limits={"max_runtime_seconds": None, "max_pending_seconds": None, "max_attempts": 3} | limits,
                    device_class=DeviceClass.CPU,
                ),
            )
            job_id = job.id
        if ring:
            bell = Bell(self.settings)
            bell.ring(DeviceClass.CPU)
            bell.close()
        return job_id

    def start_worker(self, **environment: str) -> RunningWorker:
        """Start `pals worker` and wait for its sign of life."""
        with self.database.read() as session:
            before = {worker.id for worker in alive(session)}
        log = self.settings.root / f"worker-{len(self.workers)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "worker", "--exit-with-parent"],
                stdin=subprocess.PIPE,
                env={**os.environ, **self.environment, **environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        worker = RunningWorker(process, log)
        self.workers.append(worker)

        def announced() -> bool:
            if process.poll() is not None:
                pytest.fail(f"the worker ended: {log.read_text()}")
            with self.database.read() as session:
                return any(row.id not in before for row in alive(session))

        eventually(announced, "the worker announces itself", PATIENCE)
        return worker

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            job = get_job(session, DEFAULT_TENANT, job_id)
            assert job is not None
            return job

    def events(self, job_id: str) -> list[Event]:
        with self.database.read() as session:
            return list(events_after(session, job_id, 0, 100_000))

    def ask(self, what: Callable[[Session, Job], Result], job_id: str) -> Result:
        """Do something with a job under its lock, as the API would."""
        with self.database.write() as session:
            job = lock(session, job_id)
            assert job is not None
            return what(session, job)

    def cancel(self, job_id: str) -> None:
        self.ask(cancel, job_id)

    def end_wait(self, job_id: str) -> None:
        """Let a job that is put off be claimed now."""
        with self.database.write() as session:
            job = lock(session, job_id)
            assert job is not None
            job.not_before = None

    def states(self, job_id: str) -> list[SavedState]:
        """The job's saved states, newest first."""
        with self.database.read() as session:
            return states_of(session, session.get_one(Job, job_id))

    def wait_for_states(self, job_id: str, attempt: int = 1) -> int:
        """Until two states were saved in this attempt; returns the step of the newest."""

        def saved() -> int | None:
            job, states = self.job(job_id), self.states(job_id)
            begun = job.resumed_from["step"] if job.resumed_from else 0
            whole = job.attempt == attempt and job.progress is not None and len(states) == 2
            return states[0].step if whole and states[1].step > begun else None

        step = eventually(saved, f"attempt {attempt} of {job_id} saves states", PATIENCE)
        assert isinstance(step, int)
        return step

    def wait_for_steps(self, job_id: str, attempt: int = 1) -> None:
        """Until the job trains in this attempt."""
        eventually(
            lambda: (j := self.job(job_id)).attempt == attempt and j.progress and j.progress["step"] > 0,
            f"attempt {attempt} of {job_id} makes steps",
            PATIENCE,
        )

    def wait_for_status(self, job_id: str, status: JobStatus) -> Job:
        def reached() -> Job | None:
            job = self.job(job_id)
            if job.status in FINAL_STATUSES and job.status != status:
                pytest.fail(f"{job_id} is {job.status}, not {status}: {job.error}")
            return job if job.status == status else None

        job = eventually(reached, f"{job_id} becomes {status}", PATIENCE)
        assert isinstance(job, Job)
        return job

    def stop(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGCONT)
                worker.process.send_signal(signal.SIGTERM)
        for worker in self.workers:
            worker.process.wait(30)
            assert worker.process.stdin is not None
            worker.process.stdin.close()


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Makes embedded stacks with leases short enough to wait for; stops them after the test."""
    stacks: list[Stack] = []

    def make(**environment: str) -> Stack:
        environment = {
            "PALS_DATA_DIR": str(tmp_path / f"data-{len(stacks)}"),
            "PALS_LEASE_SECONDS": "6",
            "PALS_LEASE_GRACE_SECONDS": "1",
            "PALS_UPKEEP_SECONDS": "0.3",
            **environment,
        }
        settings = Settings.model_validate({name[5:].lower(): value for name, value in environment.items()})
        database = open_database(settings)
        schema.upgrade(database)
        stacks.append(Stack(environment, settings, database))
        return stacks[-1]

    yield make
    for stack in stacks:
        stack.stop()
        stack.database.close()


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    """The embedded stack."""
    return make_stack()
