"""What must hold is looked at with eyes that see: each thing that can be wrong is found when it is."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from jobstore import schema
from jobstore.artifacts import PUBLISHED
from jobstore.control import cancel
from jobstore.leases import finish
from jobstore.lifecycle import JobStatus
from jobstore.metrics import Point
from jobstore.tables import Artifact, Event, Job, Metric
from tests.chaos.cluster import Cluster
from tests.chaos.load import Posted
from tests.chaos.verdict import wrong_with, wrong_with_store
from tests.chaos.watcher import Watcher
from tests.eventually import eventually
from tests.jobstore.conftest import Store

CANCELLED = frozenset({JobStatus.CANCELLED})


@dataclass
class Ended:
    """A service that never ran, with a job that was trained for three steps and cancelled."""

    cluster: Cluster
    job: Posted

    def wrong(self) -> list[str]:
        return list(wrong_with(self.cluster, self.job, reference="0" * 64))

    def change(self, statement: object) -> None:
        with self.cluster.database.write() as session:
            session.execute(statement)


@pytest.fixture
def ended(tmp_path: Path) -> Iterator[Ended]:
    cluster = Cluster("none", tmp_path, {"PALS_DATA_DIR": str(tmp_path / "data")}, {"serve": []})
    schema.upgrade(cluster.database)
    store = Store(cluster.database, cluster.settings, cluster.artifacts)
    lease = store.run()
    store.record(lease, 1, points=[Point("train_loss", step, 0.5) for step in (1, 2, 3)])
    with cluster.database.write() as session:
        cancel(session, session.get_one(Job, lease.job_id))
        finish(session, lease, JobStatus.CANCELLED, message="cancelled", runtime_seconds=1)
    yield Ended(cluster, Posted(lease.job_id, "dlinear pals", CANCELLED))
    cluster.database.close()


def test_a_job_that_ended_rightly_is_not_found_fault_with(ended: Ended) -> None:
    assert ended.wrong() == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda: delete(Event).where(Event.seq == 2), "events are missing or doubled"),
        (lambda: update(Job).values(event_seq=9), "the counter says 9"),
        (lambda: update(Event).where(Event.seq == 3).values(data={"from": "queued", "status": "paused"}), "moved from"),
        (lambda: delete(Metric).where(Metric.step == 2), "points of its loss are missing"),
        (lambda: update(Job).values(attempt=2), "claimed 1 times in 2 attempts"),
        (lambda: update(Job).values(status=JobStatus.RUNNING), "stuck: running"),
        (lambda: update(Job).values(status=JobStatus.FAILED), "ended as failed"),
    ],
)
def test_what_is_wrong_with_a_job_is_found(ended: Ended, change: Callable[[], object], complaint: str) -> None:
    ended.change(change())
    assert complaint in " ".join(ended.wrong())


def test_a_job_that_is_not_there_is_lost(ended: Ended) -> None:
    ended.job.id = "job_0"
    assert ended.wrong() == ["lost"]


def test_files_of_nobody_and_other_bytes_are_found(ended: Ended) -> None:
    root = ended.cluster.artifacts.root
    with ended.cluster.database.write() as session:
        [dataset] = session.query(Artifact).all()
        dataset.status, key = PUBLISHED, dataset.key
    stored = root / key
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"")
    assert list(wrong_with_store(ended.cluster)) == []
    stored.write_bytes(b"other")
    (root / "default" / "forgotten").write_bytes(b"")
    wrong = list(wrong_with_store(ended.cluster))
    assert wrong == [
        "file default/forgotten belongs to nobody",
        f"the bytes of {key} are not those that were stored",
    ]


def test_two_processes_that_train_one_job_are_seen(ended: Ended) -> None:
    scratch = ended.cluster.settings.scratch_dir
    folders = [scratch / worker / f"job_1-{worker}" for worker in ("wrk_1", "wrk_2")]
    folders.append(scratch / "wrk_3" / "job_2-x")
    trainings = []
    for folder in folders:
        folder.mkdir(parents=True)
        command = [sys.executable, "-c", "import time; time.sleep(600)", "worker.train"]
        trainings.append(subprocess.Popen(command, cwd=folder))
    try:
        trainings[0].send_signal(signal.SIGSTOP)
        with Watcher(ended.cluster) as watcher:
            eventually(lambda: len(watcher.seen) == 3, "all are seen", 30)
            time.sleep(0.5)
            assert watcher.doubles == []
            trainings[0].send_signal(signal.SIGCONT)
            eventually(lambda: watcher.doubles, "the two are seen", 30)
        assert all(double.startswith("job_1: ") for double in watcher.doubles)
        assert len(watcher.alive()) == 3
    finally:
        for training in trainings:
            training.kill()
            training.wait()
    assert watcher.alive() == []
