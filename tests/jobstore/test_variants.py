from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from jobstore.artifacts import new_artifact, sweepable
from jobstore.checkpoints import NewCheckpoint, checkpoints_of, delete_checkpoint
from jobstore.database import now
from jobstore.jobs import delete_job, lock
from jobstore.leases import Lease, finish
from jobstore.lifecycle import JobStatus
from jobstore.storage import StoredBlob
from jobstore.tables import Artifact, Checkpoint, Variant
from jobstore.variants import (
    Making,
    drop_variants,
    fail_variant,
    publish_variant,
    renew_variant,
    take_variant,
    variant_of,
    variants_of,
)

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store

BLOB = StoredBlob("1" * 64, 5)


class Trained:
    """A job with a checkpoint, and what is asked of its int8 variant."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lease: Lease = store.run()
        self.reports = 0
        self.save()

    def save(self) -> None:
        """The checkpoint, or another in its place."""
        self.reports += 1
        new = NewCheckpoint(self.store.artifact(), BLOB, 10, 1, True, True, 0.5, 0.1, None, {})
        self.store.record(self.lease, self.reports, checkpoint=new)

    @property
    def checkpoint(self) -> Checkpoint:
        with self.store.database.read() as session:
            [found] = checkpoints_of(session, self.lease.job_id)
            return found

    def take(self, precision: str = "int8", seconds: float = 60) -> Making | None:
        with self.store.database.write() as session:
            return take_variant(session, self.checkpoint, "packed", precision, seconds=seconds)

    def taken(self, precision: str = "int8") -> Making:
        making = self.take(precision)
        assert making is not None
        return making

    def publish(self, making: Making) -> tuple[bool, str]:
        """Whether it was, and the artifact."""
        artifact_id = self.store.artifact("variants")
        with self.store.database.write() as session:
            return publish_variant(session, making, artifact_id, BLOB, mse_change=0.002), artifact_id

    def shown(self, precision: str = "int8") -> Variant | None:
        with self.store.database.read() as session:
            return variant_of(session, self.checkpoint.id, "packed", precision)


@pytest.fixture
def trained(store: Store) -> Trained:
    return Trained(store)


def test_a_variant_is_made_by_whoever_asks_first(trained: Trained) -> None:
    making = trained.taken()
    assert trained.take() is None
    assert trained.take("fp16") is not None

    published, artifact_id = trained.publish(making)
    assert published
    ready = trained.shown()
    assert ready is not None
    assert (ready.status, ready.artifact_id, ready.mse_change) == ("ready", artifact_id, 0.002)
    assert trained.store.artifact_status(artifact_id) == "published"
    assert trained.take() is None


def test_the_variants_of_checkpoints_are_listed(trained: Trained) -> None:
    trained.taken("int8")
    trained.taken("fp16")
    with trained.store.database.read() as session:
        listed = variants_of(session, [trained.checkpoint.id, "ckpt_other"])

    assert [(one.format, one.precision, one.status) for one in listed] == [
        ("packed", "fp16", "making"),
        ("packed", "int8", "making"),
    ]


def test_an_attempt_that_is_not_renewed_is_taken_over_and_writes_nothing(trained: Trained) -> None:
    store, lost = trained.store, trained.taken()
    with store.database.write() as session:
        assert renew_variant(session, lost, seconds=60)
    assert trained.take() is None
    with store.database.write() as session:
        assert renew_variant(session, lost, seconds=0)
    taken_over = trained.taken()

    with store.database.write() as session:
        assert not renew_variant(session, lost, seconds=60)
        assert not fail_variant(session, lost, {"code": "x", "message": "x"}, seconds=60)
    published, artifact_id = trained.publish(lost)
    assert not published
    assert store.artifact_status(artifact_id) == "deleting"
    assert trained.publish(taken_over)[0]


def test_a_failure_is_told_for_a_while_and_then_tried_again(trained: Trained) -> None:
    error = {"code": "variant_failed", "message": "too large"}
    making = trained.taken()
    with trained.store.database.write() as session:
        assert fail_variant(session, making, error, seconds=60)
    failed = trained.shown()
    assert failed is not None
    assert (failed.status, failed.error) == ("failed", error)
    assert trained.take() is None

    with trained.store.database.write() as session:
        session.execute(update(Variant).values(expires_at=now(session) - timedelta(seconds=1)))
    assert trained.publish(trained.taken())[0]
    ready = trained.shown()
    assert ready is not None
    assert ready.error is None


def test_a_deleted_checkpoint_takes_its_variants_with_it(trained: Trained) -> None:
    store, unfinished = trained.store, trained.taken("fp16")
    _, artifact_id = trained.publish(trained.taken())
    with store.database.write() as session:
        delete_checkpoint(session, session.get_one(Checkpoint, trained.checkpoint.id))

    assert store.artifact_status(artifact_id) == "deleting"
    published, late = trained.publish(unfinished)
    assert not published
    assert store.artifact_status(late) == "deleting"
    with store.database.write() as session:
        assert session.query(Variant).count() == 0


def test_a_checkpoint_that_is_replaced_keeps_none_of_its_variants(trained: Trained) -> None:
    checkpoint_id = trained.checkpoint.id
    _, artifact_id = trained.publish(trained.taken())
    trained.save()

    assert trained.checkpoint.id == checkpoint_id
    assert trained.shown() is None
    assert trained.store.artifact_status(artifact_id) == "deleting"
    assert trained.publish(trained.taken())[0]


def test_a_deleted_job_takes_the_variants_with_it(trained: Trained) -> None:
    store = trained.store
    _, artifact_id = trained.publish(trained.taken())
    with store.database.write() as session:
        finish(session, trained.lease, JobStatus.SUCCEEDED, message="done", runtime_seconds=1.0)
    with store.database.write() as session:
        job = lock(session, trained.lease.job_id)
        assert job is not None
        delete_job(session, job)

    assert store.artifact_status(artifact_id) == "deleting"
    with store.database.read() as session:
        assert session.query(Variant).count() == 0


def test_the_sweep_leaves_what_a_variant_refers_to(trained: Trained) -> None:
    store = trained.store
    _, artifact_id = trained.publish(trained.taken())
    with store.database.write() as session:
        abandoned = new_artifact(session, "default", "variants").id
        long_ago = now(session) - timedelta(days=2)
        # As if the row had never been published.
        session.execute(update(Artifact).values(status="pending", created_at=long_ago))
    with store.database.write() as session:
        assert [found for found, _ in sweepable(session, now=now(session))] == [abandoned]
    assert store.artifact_status(artifact_id) == "pending"


def test_dropping_what_is_not_there_is_harmless(trained: Trained) -> None:
    with trained.store.database.write() as session:
        drop_variants(session, "ckpt_none")
