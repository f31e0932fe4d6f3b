"""A job store on each database, and a few words to tell stories with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from jobstore import schema
from jobstore.artifacts import new_artifact, publish
from jobstore.control import cancel, pause
from jobstore.database import Database, open_database
from jobstore.datasets import create_dataset, finish_audit
from jobstore.events import NewEvent, events_after
from jobstore.jobs import NewJob, create_job, lock
from jobstore.leases import Lease, Report, claim_next, record
from jobstore.lifecycle import JobStatus
from jobstore.settings import Settings
from jobstore.states import NewState, states_of
from jobstore.storage import ArtifactFolder, StoredBlob
from jobstore.tables import Artifact, Base, Event, Job
from tests.servers.postgres import PostgresServer

Result = TypeVar("Result")
TENANT = "default"
EMPTY = StoredBlob("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0)


@dataclass(frozen=True)
class Store:
    """A migrated, empty job store and what the tests do to it, one transaction each."""

    database: Database
    settings: Settings
    artifacts: ArtifactFolder

    def artifact(self, kind: str = "checkpoints") -> str:
        """A pending artifact's id."""
        with self.database.write() as session:
            return new_artifact(session, TENANT, kind).id

    def artifact_status(self, artifact_id: str) -> str | None:
        with self.database.read() as session:
            row = session.get(Artifact, artifact_id)
            return None if row is None else row.status

    def dataset(self, *, tenant: str = TENANT, ready: bool = True) -> str:
        """An uploaded (and, unless told otherwise, audited) dataset's id."""
        with self.database.write() as session:
            artifact = new_artifact(session, tenant, "datasets")
            dataset = create_dataset(
                session,
                tenant_id=tenant,
                name="illness",
                media_type="text/csv",
                artifact_id=artifact.id,
                blob=EMPTY,
                audit_seconds=60,
            )
            if ready:
                finish_audit(session, dataset.id, profile={"rows": 0}, error=None)
            return dataset.id

    def queue(
        self,
        *,
        dataset: str | None = None,
        tenant: str = TENANT,
        priority: int = 0,
        device: str = "cpu",
        max_attempts: int = 3,
        max_pending_seconds: float | None = None,
        metadata: dict[str, str] | None = None,
        model: str = "nstransformer",
        method: str = "pals",
    ) -> str:
        """A queued job's id."""
        dataset = dataset or self.dataset(tenant=tenant)
        with self.database.write() as session:
            job = create_job(
                session,
                NewJob(
                    tenant_id=tenant,
                    name="illness, 24 weeks",
                    dataset_id=dataset,
                    spec={"model": {"name": model}, "method": {"name": method}},
                    limits={
                        "max_attempts": max_attempts,
                        "max_pending_seconds": max_pending_seconds,
                        "max_runtime_seconds": None,
                    },
                    device_class=device,
                    priority=priority,
                    metadata=metadata or {},
                ),
            )
            return job.id

    def claim(
        self, worker: str = "wrk_1", devices: Collection[str] = ("cpu", "auto"), slot: str | None = None
    ) -> Lease | None:
        with self.database.write() as session:
            return claim_next(session, worker, devices, lease_seconds=60, slot=slot)

    def run(self, **options: Any) -> Lease:
        """The lease of a job that has just been queued and claimed."""
        job_id = self.queue(**options)
        lease = self.claim()
        assert lease is not None
        assert lease.job_id == job_id
        return lease

    def record(self, lease: Lease, number: int, *events: NewEvent, **report: Any) -> JobStatus:
        with self.database.write() as session:
            return record(session, lease, Report(number, events=events, **report))

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return session.get_one(Job, job_id)

    def log(self, job_id: str) -> list[Event]:
        with self.database.read() as session:
            return [*events_after(session, job_id, 0, 100_000)]

    def put_in(self, job_id: str, status: JobStatus) -> None:
        """Set a state by force, past the rules under test."""
        with self.database.write() as session:
            session.execute(update(Job).where(Job.id == job_id).values(status=status))

    def save_state(self, lease: Lease, number: int, step: int, **report: Any) -> str:
        """Publish a state in a report of its own; the artifact's id."""
        artifact_id = self.artifact("states")
        self.record(lease, number, state=NewState(artifact_id, EMPTY, step), **report)
        return artifact_id

    def steps_of_states(self, job_id: str) -> list[int]:
        """Newest first."""
        with self.database.read() as session:
            return [state.step for state in states_of(session, session.get_one(Job, job_id))]

    def ask(self, what: Callable[[Session, Job], Result], job_id: str) -> Result:
        """Do something with a job under its lock."""
        with self.database.write() as session:
            job = lock(session, job_id)
            assert job is not None
            return what(session, job)

    def cancel(self, job_id: str) -> None:
        self.ask(cancel, job_id)

    def pause(self, job_id: str) -> None:
        self.ask(pause, job_id)

    def publish(self, artifact_id: str, blob: StoredBlob = EMPTY) -> None:
        with self.database.write() as session:
            publish(session, artifact_id, blob)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("template"))
    database = open_database(settings)
    schema.upgrade(database)
    database.close()
    return settings.root / "pals.db"


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: PostgresServer) -> Iterator[Database]:
    """A migrated database, emptied between tests."""
    url = postgres_server.create_database()
    database = open_database(Settings.model_validate({"database_url": url}))
    schema.upgrade(database)
    yield database
    database.close()
    postgres_server.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A migrated, empty job store, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        settings = Settings(data_dir=tmp_path / "data")
        settings.root.mkdir()
        shutil.copy(request.getfixturevalue("migrated_sqlite"), settings.root / "pals.db")
        database = open_database(settings)
        yield Store(database, settings, ArtifactFolder(settings.resolved_artifacts_url, new=True))
        database.close()
        return
    database = request.getfixturevalue("migrated_postgres")
    url = database.engine.url.render_as_string(hide_password=False)
    settings = Settings.model_validate({"data_dir": tmp_path / "data", "database_url": url})
    yield Store(database, settings, ArtifactFolder(settings.resolved_artifacts_url, new=True))
    with database.write() as session:
        session.execute(text(f"TRUNCATE {', '.join(table.name for table in Base.metadata.sorted_tables)}"))
