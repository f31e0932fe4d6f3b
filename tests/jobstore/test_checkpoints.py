from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from jobstore.artifacts import mark_deleting
from jobstore.checkpoints import NewCheckpoint, NewEvaluation, checkpoints_of, delete_checkpoint, get_checkpoint
from jobstore.leases import Lease
from jobstore.storage import StorageFailed, StoredBlob
from jobstore.tables import Checkpoint

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store


class Training:
    """One attempt that saves checkpoints."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lease: Lease = store.run()
        self.reports = 0

    def save(
        self,
        step: int,
        *,
        best: bool,
        last: bool,
        metrics: dict[str, object] | None = None,
        evaluation: str | None = None,
    ) -> str:
        """Store a checkpoint, with the artifact of its evaluation; returns its artifact's id."""
        artifact_id = self.store.artifact()
        blob = StoredBlob(hashlib.sha256(artifact_id.encode()).hexdigest(), 100 + step)
        evaluated = None if evaluation is None else NewEvaluation(evaluation, blob)
        new = NewCheckpoint(
            artifact_id, blob, step, step // 10, best, last, step / 100, 1 / step, metrics, {}, evaluated
        )
        self.reports += 1
        self.store.record(self.lease, self.reports, checkpoint=new)
        return artifact_id

    def kept(self) -> list[Checkpoint]:
        with self.store.database.read() as session:
            return [*checkpoints_of(session, self.lease.job_id)]


def test_a_job_keeps_its_best_and_its_last_checkpoint(store: Store) -> None:
    training = Training(store)
    artifacts = [
        training.save(10, best=True, last=True),
        training.save(20, best=True, last=True),
        training.save(30, best=False, last=True),
        training.save(40, best=False, last=True),
    ]

    assert [(kept.step, kept.is_best, kept.is_last) for kept in training.kept()] == [
        (20, True, False),
        (40, False, True),
    ]
    assert [store.artifact_status(artifact) for artifact in artifacts] == [
        "deleting", "published", "deleting", "published",
    ]  # fmt: skip


def test_the_best_that_is_also_the_last_is_one_checkpoint(store: Store) -> None:
    training = Training(store)
    training.save(10, best=True, last=True)
    training.save(20, best=True, last=True)

    assert [(kept.step, kept.is_best, kept.is_last) for kept in training.kept()] == [(20, True, True)]


def test_a_checkpoint_of_the_same_step_is_replaced_and_keeps_its_identifier(store: Store) -> None:
    training = Training(store)
    old = training.save(10, best=True, last=True)
    [first] = training.kept()
    new = training.save(10, best=True, last=True, metrics={"mse": 0.5})
    [second] = training.kept()

    assert second.id == first.id
    assert (second.artifact_id, second.metrics) == (new, {"mse": 0.5})
    assert (store.artifact_status(old), store.artifact_status(new)) == ("deleting", "published")


def test_the_log_announces_each_checkpoint_with_what_a_download_needs(store: Store) -> None:
    training = Training(store)
    artifact_id = training.save(10, best=True, last=True)
    [kept] = training.kept()

    event = store.log(training.lease.job_id)[-1]
    assert event.type == "checkpoint"
    assert event.data == {
        "checkpoint_id": kept.id,
        "step": 10,
        "epoch": 1,
        "is_best": True,
        "is_last": True,
        "sparsity": 0.1,
        "validation_loss": 0.1,
        "metrics": None,
        "bytes": 110,
        "sha256": hashlib.sha256(artifact_id.encode()).hexdigest(),
    }


def test_a_deleted_checkpoint_gives_its_bytes_to_the_sweep(store: Store) -> None:
    training = Training(store)
    artifact_id = training.save(10, best=True, last=True)
    [kept] = training.kept()
    with store.database.write() as session:
        found = get_checkpoint(session, "default", kept.id)
        assert found is not None
        delete_checkpoint(session, found)

    assert training.kept() == []
    assert store.artifact_status(artifact_id) == "deleting"


def test_an_evaluation_is_published_and_goes_with_its_checkpoint(store: Store) -> None:
    training = Training(store)
    evaluations = [store.artifact() for _ in range(3)]
    training.save(10, best=True, last=True, evaluation=evaluations[0])
    training.save(20, best=True, last=True, evaluation=evaluations[1])
    assert [store.artifact_status(evaluation) for evaluation in evaluations] == ["deleting", "published", "pending"]

    training.save(20, best=True, last=True, evaluation=evaluations[2])
    assert [store.artifact_status(evaluation) for evaluation in evaluations] == ["deleting", "deleting", "published"]
    [kept] = training.kept()
    assert kept.evaluation_id == evaluations[2]

    with store.database.write() as session:
        found = get_checkpoint(session, "default", kept.id)
        assert found is not None
        delete_checkpoint(session, found)
    assert store.artifact_status(evaluations[2]) == "deleting"


def test_another_tenants_checkpoint_does_not_exist(store: Store) -> None:
    training = Training(store)
    training.save(10, best=True, last=True)
    [kept] = training.kept()

    with store.database.read() as session:
        assert get_checkpoint(session, "other", kept.id) is None


def test_bytes_that_the_sweep_took_meanwhile_are_not_announced(store: Store) -> None:
    training = Training(store)
    artifact_id = store.artifact()
    with store.database.write() as session:
        mark_deleting(session, artifact_id)
    new = NewCheckpoint(artifact_id, StoredBlob("0" * 64, 1), 10, 1, True, True, 0.5, 0.1, None, {})

    with pytest.raises(StorageFailed):
        store.record(training.lease, 1, checkpoint=new)

    assert training.kept() == []
    assert [event.type for event in store.log(training.lease.job_id)] == ["state", "state"]
