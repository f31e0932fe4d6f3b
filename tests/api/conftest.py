"""The API as a process of its own, reached over HTTP, and a worker played through the job store."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from jobstore.artifacts import new_artifact
from jobstore.checkpoints import NewCheckpoint, NewEvaluation, checkpoints_of
from jobstore.database import Database, open_database
from jobstore.events import EventType, NewEvent
from jobstore.leases import Lease, Report, claim_next, finish, record, release
from jobstore.lifecycle import JobStatus, StatusReason
from jobstore.metrics import Point
from jobstore.schema import upgrade
from jobstore.settings import Settings
from jobstore.states import NewState
from jobstore.storage import ArtifactFolder, StoredBlob
from jobstore.workers import DeviceClass, Slot, WorkerIdentity, announce, retire
from pals_core.checkpoint.container import read_header
from pals_core.checkpoint.header import NetworkCost
from pals_core.data.table import Table
from tests.core.training.small_training import best_checkpoint, make_spec, series, trained

__all__ = ["best_checkpoint", "make_spec", "series", "trained"]

TENANT = "default"
SERVE = "from api.server import run; from jobstore.settings import Settings; run(Settings())"
SMALL: dict[str, Any] = {
    "data": {"input_len": 12, "label_len": 6, "horizon": 4},
    "model": {"name": "nstransformer", "d_model": 16, "d_ff": 32, "heads": 2, "encoder_layers": 1},
    "method": {"name": "pals", "update_interval": 2},
    "training": {"epochs": 3, "device": "cpu"},
}


def csv_of(table: Table) -> bytes:
    text: str = table_frame(table).to_csv(index_label="date")
    return text.encode()


def table_frame(table: Table) -> pd.DataFrame:
    return pd.DataFrame(table.values, index=table.times, columns=list(table.columns))


@dataclass
class Server:
    """A running API, and the store it stands on."""

    http: httpx.Client
    settings: Settings
    database: Database
    artifacts: ArtifactFolder
    process: subprocess.Popen[str]
    table: bytes = b""

    def upload(self, content: bytes | None = None, name: str = "waves") -> dict[str, Any]:
        """A dataset, ready."""
        response = self.http.post(
            "/v1/datasets",
            params={"name": name},
            content=self.table if content is None else content,
            headers={"Content-Type": "text/csv"},
        )
        assert response.status_code == 201, response.text
        dataset: dict[str, Any] = response.json()
        assert dataset["status"] == "ready", dataset
        return dataset

    def queue(self, **fields: Any) -> dict[str, Any]:
        """A queued job."""
        if "dataset_id" not in fields:
            fields["dataset_id"] = self.upload()["id"]
        response = self.http.post("/v1/jobs", json={"spec": SMALL} | fields)
        assert response.status_code == 202, response.text
        job: dict[str, Any] = response.json()
        return job

    def claim(self, job_id: str, worker: str = "wrk_test", slot: str | None = None) -> Lease:
        """What a worker gets that takes jobs until it has this one; the others are finished as failed."""
        while True:
            with self.database.write() as session:
                lease = claim_next(session, worker, ("cpu", "auto"), lease_seconds=60, slot=slot)
            assert lease is not None
            if lease.job_id == job_id:
                return lease
            self.end(lease, JobStatus.FAILED)

    def tell(self, lease: Lease, number: int, *events: NewEvent, **report: Any) -> None:
        with self.database.write() as session:
            record(session, lease, Report(number, events=events, **report))

    def say(self, lease: Lease, number: int, *messages: str) -> None:
        self.tell(lease, number, *(NewEvent(EventType.MESSAGE, message) for message in messages))

    def end(self, lease: Lease, to: JobStatus = JobStatus.SUCCEEDED) -> None:
        with self.database.write() as session:
            finish(session, lease, to, message=str(to), runtime_seconds=1.0)

    def release(self, lease: Lease) -> None:
        """Give the job back as a worker that drains, or was asked to."""
        with self.database.write() as session:
            release(session, lease, why="draining", reason=StatusReason.WORKER_DRAINING, runtime_seconds=1.0)

    def save_state(self, lease: Lease, number: int, step: int, **report: Any) -> None:
        """Publish a state of the job."""
        with self.database.write() as session:
            artifact = new_artifact(session, TENANT, "states")
        with self.artifacts.writer(artifact.key) as writer:
            blob = writer.commit()
        self.tell(lease, number, state=NewState(artifact.id, blob, step), **report)

    def put(self, kind: str, file: Path) -> tuple[str, StoredBlob]:
        """Store a file, for something to refer to."""
        with self.database.write() as session:
            artifact = new_artifact(session, TENANT, kind)
        return artifact.id, self.artifacts.put(artifact.key, file)

    def checkpoint(self, lease: Lease, number: int, file: Path, evaluation: Path | None = None) -> str:
        """Store a file as the job's best checkpoint, and another as its evaluation."""
        evaluated = None if evaluation is None else NewEvaluation(*self.put("evaluations", evaluation))
        cost = read_header(file).model_dump(mode="json", include=set(NetworkCost.model_fields))
        new = NewCheckpoint(*self.put("checkpoints", file), 10, 1, True, True, 0.5, 0.25, None, cost, evaluated)
        self.tell(lease, number, points=[Point("sparsity", 10, 0.5)], checkpoint=new)
        with self.database.read() as session:
            return checkpoints_of(session, lease.job_id)[0].id


@contextmanager
def serving(folder: Path, environment: Mapping[str, str] | None = None, before: str = "") -> Iterator[Server]:
    """Migrate the database, start the API on a free port, and stop it afterwards."""
    variables = {"PALS_DATA_DIR": str(folder / "data"), "PALS_PORT": "0", **(environment or {})}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        settings = Settings()
    database = open_database(settings)
    upgrade(database)
    with (folder / "stderr").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", before + SERVE],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **variables},
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("PALS listens on "), (folder / "stderr").read_text()
        artifacts = ArtifactFolder(settings.resolved_artifacts_url, new=True)
        with httpx.Client(base_url=line.split()[-1], timeout=60) as http:
            yield Server(http, settings, database, artifacts, process)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
        database.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, series: Table) -> Iterator[Server]:
    """The API on SQLite, shared by all tests: each brings its own datasets and jobs."""
    with serving(tmp_path_factory.mktemp("api")) as running:
        running.table = csv_of(series)
        yield running


@pytest.fixture(scope="session")
def postgres_server_api(tmp_path_factory: pytest.TempPathFactory, series: Table, postgres_url: str) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("api-postgres"), {"PALS_DATABASE_URL": postgres_url}) as running:
        running.table = csv_of(series)
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest) -> Server:
    """The API on SQLite, then on PostgreSQL."""
    name = "server" if request.param == "sqlite" else "postgres_server_api"
    running: Server = request.getfixturevalue(name)
    return running


@pytest.fixture
def live_worker(server: Server) -> Iterator[WorkerIdentity]:
    """A worker for CPU jobs that has just given a sign of life."""
    worker = WorkerIdentity((Slot("cpu-0", (DeviceClass.CPU, DeviceClass.AUTO), 2),), {"torch": "2"})
    with server.database.write() as session:
        announce(session, worker)
    yield worker
    with server.database.write() as session:
        retire(session, worker.id)


Problem = Callable[..., dict[str, Any]]


@pytest.fixture
def problem() -> Problem:
    """Check that an answer is a problem of this status and code, and return its body."""

    def check(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        body: dict[str, Any] = response.json()
        assert body["code"] == code
        assert body["status"] == status
        assert body["type"].endswith(code)
        assert body["instance"] == response.request.url.raw_path.decode().partition("?")[0]
        assert body["request_id"] == response.headers["x-request-id"]
        assert body["title"]
        assert body["detail"]
        assert "Traceback" not in response.text
        return body

    return check
