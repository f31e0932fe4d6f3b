"""What must hold is looked at with eyes that see: each thing that can be wrong is found when it is."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from jobstore import schema
from jobstore.artifacts import PUBLISHED, new_artifact
from jobstore.checkpoints import NewCheckpoint
from jobstore.control import cancel
from jobstore.events import EventType, NewEvent
from jobstore.leases import Beginning, finish
from jobstore.lifecycle import JobStatus
from jobstore.metrics import Point
from jobstore.tables import Artifact, Event, Job, Metric
from tests.chaos.cluster import Cluster
from tests.chaos.load import Posted
from tests.chaos.record import Record, record_of
from tests.chaos.verdict import wrong_with, wrong_with_store
from tests.chaos.watcher import Watcher
from tests.eventually import eventually
from tests.jobstore.conftest import EMPTY, TENANT, Store

CANCELLED = frozenset({JobStatus.CANCELLED})


@dataclass
class Ended:
    """A service that never ran, with a job that was trained for three steps and cancelled."""

    cluster: Cluster
    job: Posted

    def wrong(self) -> list[str]:
        return list(wrong_with(self.cluster, self.job, Record("0" * 64, [])))

    def change(self, statement: object) -> None:
        with self.cluster.database.write() as session:
            session.execute(statement)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A service that never ran."""
    cluster = Cluster("none", tmp_path, {"PALS_DATA_DIR": str(tmp_path / "data")}, {"serve": []})
    schema.upgrade(cluster.database)
    yield cluster
    cluster.database.close()


@pytest.fixture
def store(cluster: Cluster) -> Store:
    return Store(cluster.database, cluster.settings, cluster.artifacts)


@pytest.fixture
def ended(cluster: Cluster, store: Store) -> Ended:
    lease = store.run()
    store.record(lease, 1, points=[Point("train_loss", step, 0.5) for step in (1, 2, 3)])
    with cluster.database.write() as session:
        cancel(session, session.get_one(Job, lease.job_id))
        finish(session, lease, JobStatus.CANCELLED, message="cancelled", runtime_seconds=1)
    return Ended(cluster, Posted(lease.job_id, "dlinear pals", CANCELLED))


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


TOLD = [
    NewEvent(EventType.MASK_UPDATE, "step 2: shrink", {"step": 2, "sparsity": 0.5}),
    NewEvent(EventType.EPOCH, "epoch 1", {"step": 3, "validation_loss": 0.4}),
    NewEvent(EventType.MASK_UPDATE, "step 4: stable", {"step": 4, "sparsity": 0.5}),
]
TESTED = NewEvent(EventType.CHECKPOINT, "best checkpoint", {"checkpoint_id": "ckp_1", "step": 4, "metrics": {"mse": 1}})
POINTS = [Point("train_loss", step, 1 / step) for step in (1, 2, 3, 4)]
POINTS += [Point("sparsity", step, 0.5) for step in (0, 2, 4)]


def train(
    store: Store, told: Sequence[NewEvent] = (*TOLD, TESTED), points: Sequence[Point] = POINTS, best: bytes = b"best"
) -> str:
    """A job that succeeded with such a record."""
    lease = store.run()
    with store.database.write() as session:
        artifact = new_artifact(session, TENANT, "checkpoints")
    with store.artifacts.writer(artifact.key) as writer:
        writer.write(best)
        writer.commit()
    store.record(
        lease,
        1,
        *told,
        points=points,
        progress={"step": 4},
        beginning=Beginning(None, reproducible=True),
        checkpoint=NewCheckpoint(artifact.id, EMPTY, 4, 1, True, True, 0.5, 0.4, None, {}),
    )
    with store.database.write() as session:
        finish(session, lease, JobStatus.SUCCEEDED, message="succeeded", runtime_seconds=1)
    return lease.job_id


def unlike_an_undisturbed_one(store: Store, cluster: Cluster, **record: Any) -> list[str]:
    reference = record_of(cluster, train(store))
    return list(wrong_with(cluster, Posted(train(store, **record), "dlinear pals"), reference))


def test_a_job_that_tells_the_same_of_its_training_is_not_found_fault_with(store: Store, cluster: Cluster) -> None:
    lost = NewEvent(EventType.MESSAGE, "training on cpu, going on after step 3")
    progress = NewEvent(EventType.PROGRESS, "step 3 of 4", {"step": 3})
    untested = replace(TESTED, data={"step": 3, "metrics": None})
    told = [*TOLD[:2], untested, lost, progress, *TOLD[2:], TESTED, TESTED]
    assert unlike_an_undisturbed_one(store, cluster, told=told) == []


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"told": [*TOLD[1:], TESTED]}, "of events and points 1 lost: mask_update of step 2"),
        ({"told": [TOLD[0], TOLD[2], TESTED]}, "of events and points 1 lost: epoch of step 3"),
        ({"told": [TOLD[0], *TOLD, TESTED]}, "of events and points 1 doubled: mask_update of step 2"),
        ({"told": [*TOLD, TESTED, TOLD[1]]}, "of events and points 1 doubled: epoch of step 3"),
        (
            {"told": [replace(TOLD[0], data={"step": 2, "sparsity": 0.6}), *TOLD[1:], TESTED]},
            "of events and points 1 changed: mask_update of step 2",
        ),
        (
            {"told": [*TOLD, replace(TOLD[0], data={"step": 3, "sparsity": 0.5}), TESTED]},
            "of events and points 1 made up: mask_update of step 3",
        ),
        ({"told": [*TOLD[1:], TOLD[0], TESTED]}, "of events and points the order is another"),
        ({"told": TOLD}, "of events and points 1 lost: checkpoint of step 4"),
        (
            {"told": [*TOLD, TESTED, replace(TESTED, message="another")]},
            "of events and points 1 doubled: checkpoint of step 4; 1 changed: checkpoint of step 4",
        ),
        ({"points": POINTS[:-1]}, "of events and points 1 lost: sparsity of step 4"),
        ({"points": [*POINTS, Point("sparsity", 3, 0.5)]}, "of events and points 1 made up: sparsity of step 3"),
        ({"points": [*POINTS[1:], Point("train_loss", 1, 2)]}, "of events and points 1 changed: train_loss of step 1"),
        ({"best": b"other"}, "another checkpoint than an undisturbed training's"),
    ],
)
def test_what_a_job_tells_otherwise_of_its_training_is_found(
    store: Store, cluster: Cluster, record: dict[str, Any], complaint: str
) -> None:
    assert unlike_an_undisturbed_one(store, cluster, **record) == [complaint]


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
