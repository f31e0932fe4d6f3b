"""What a worker may write, and what becomes of a job whose worker is gone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from jobstore.checkpoints import NewCheckpoint, checkpoints_of
from jobstore.database import now
from jobstore.events import EventType, NewEvent
from jobstore.leases import (
    Lease,
    LeaseLost,
    Report,
    claim_next,
    discard_state,
    expire_leases,
    finish,
    lose,
    record,
    release,
    release_smaller,
    renew,
    status_of,
    wait_for_storage,
)
from jobstore.lifecycle import JobStatus, MoveNotAllowed, StatusReason
from jobstore.metrics import Point, read_series
from jobstore.storage import StoredBlob

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tests.jobstore.conftest import Store

NOTE = NewEvent(EventType.MESSAGE, "note")


def checkpoint(artifact_id: str, step: int = 10) -> NewCheckpoint:
    return NewCheckpoint(
        artifact_id=artifact_id,
        blob=StoredBlob("0" * 64, 10),
        step=step,
        epoch=1,
        is_best=True,
        is_last=True,
        sparsity=0.5,
        validation_loss=0.1,
        metrics=None,
        cost={},
    )


def expire(store: Store, *, after_seconds: float = 60 + 10 + 1, grace: float = 10) -> int:
    with store.database.write() as session:
        return expire_leases(session, now=now(session) + timedelta(seconds=after_seconds), grace_seconds=grace)


def drain(session: Session, lease: Lease) -> None:
    why = "its worker is stopping"
    release(session, lease, why=why, reason=StatusReason.WORKER_DRAINING, runtime_seconds=99.0)


# --- reports --------------------------------------------------------------------------------------


def test_a_report_writes_events_points_progress_and_checkpoint_together(store: Store) -> None:
    lease = store.run()
    artifact_id = store.artifact()

    status = store.record(
        lease,
        1,
        NOTE,
        points=[Point("train_loss", 1, 0.5)],
        progress={"step": 1},
        current={"train_loss": 0.5},
        checkpoint=checkpoint(artifact_id),
    )

    assert status is JobStatus.RUNNING
    job = store.job(lease.job_id)
    assert (job.progress, job.current) == ({"step": 1}, {"train_loss": 0.5})
    assert [event.type for event in store.log(lease.job_id)] == ["state", "state", "message", "checkpoint"]
    assert store.artifact_status(artifact_id) == "published"
    with store.database.read() as session:
        [series] = read_series(session, lease.job_id, names=None, max_points=10)
    assert (series.name, [*series.steps], [*series.values]) == ("train_loss", [1], [0.5])


def test_what_a_report_leaves_out_stays_as_it_is(store: Store) -> None:
    lease = store.run()
    store.record(lease, 1, progress={"step": 1}, current={"sparsity": 0.2})
    store.record(lease, 2, progress={"step": 2})

    job = store.job(lease.job_id)
    assert (job.progress, job.current) == ({"step": 2}, {"sparsity": 0.2})


def test_a_report_that_is_sent_twice_is_written_once(store: Store) -> None:
    lease = store.run()
    report = Report(1, events=[NOTE], points=[Point("train_loss", 1, 0.5)], checkpoint=checkpoint(store.artifact()))
    for _ in range(2):
        with store.database.write() as session:
            record(session, lease, report)
    store.record(lease, 2, NOTE)

    assert [event.type for event in store.log(lease.job_id)][2:] == ["message", "checkpoint", "message"]


def test_a_report_says_when_somebody_asked_to_stop(store: Store) -> None:
    lease = store.run()
    store.cancel(lease.job_id)

    assert store.record(lease, 1) is JobStatus.CANCELLING
    with store.database.read() as session:
        assert status_of(session, lease) is JobStatus.CANCELLING


def test_a_renewed_lease_outlives_its_first_end(store: Store) -> None:
    lease = store.run()
    with store.database.write() as session:
        renew(session, lease, lease_seconds=600, runtime_seconds=42.0)

    assert expire(store) == 0
    job = store.job(lease.job_id)
    assert (job.status, job.runtime_seconds) == ("running", 42.0)


# --- fencing --------------------------------------------------------------------------------------

WRITES: dict[str, Callable[[Session, Lease], object]] = {
    "renew": lambda session, lease: renew(session, lease, lease_seconds=60, runtime_seconds=99.0),
    "record": lambda session, lease: record(
        session, lease, Report(7, events=[NOTE], points=[Point("train_loss", 9, 0.9)], progress={"step": 9})
    ),
    "finish": lambda session, lease: finish(
        session, lease, JobStatus.SUCCEEDED, message="done", runtime_seconds=99.0, result={"mse": 0.0}
    ),
    "release": lambda session, lease: drain(session, lease),
    "discard_state": lambda session, lease: discard_state(session, lease, 7, "torn"),
    "lose": lambda session, lease: lose(session, lease, message="child died", runtime_seconds=99.0),
    "wait_for_storage": lambda session, lease: wait_for_storage(session, lease, message="full", runtime_seconds=99.0),
    "release_smaller": lambda session, lease: release_smaller(session, lease, why="no memory", runtime_seconds=99.0),
    "status_of": status_of,
}


@pytest.mark.parametrize("write", WRITES)
def test_the_holder_of_a_lost_lease_writes_nothing(store: Store, write: str) -> None:
    stale = store.run()
    assert expire(store) == 1
    fresh = store.claim("wrk_2")
    assert fresh is not None
    assert fresh.job_id == stale.job_id
    job, log = store.job(stale.job_id), store.log(stale.job_id)

    with pytest.raises(LeaseLost), store.database.write() as session:
        WRITES[write](session, stale)

    after = store.job(stale.job_id)
    fields = ("status", "attempt", "event_seq", "report_seq", "lease_token", "lease_expires_at", "progress", "result")
    assert [getattr(after, name) for name in fields] == [getattr(job, name) for name in fields]
    assert after.runtime_seconds == job.runtime_seconds
    assert [event.seq for event in store.log(stale.job_id)] == [event.seq for event in log]
    assert store.record(fresh, 1, NOTE) is JobStatus.RUNNING


def test_the_checkpoint_of_a_lost_lease_is_not_published(store: Store) -> None:
    stale = store.run()
    expire(store)
    store.claim("wrk_2")
    artifact_id = store.artifact()

    with pytest.raises(LeaseLost), store.database.write() as session:
        record(session, stale, Report(1, checkpoint=checkpoint(artifact_id)))

    assert store.artifact_status(artifact_id) == "pending"
    with store.database.read() as session:
        assert checkpoints_of(session, stale.job_id) == []


def test_a_lease_that_ended_but_was_not_yet_taken_away_is_still_good(store: Store) -> None:
    job_id = store.queue()
    with store.database.write() as session:
        lease = claim_next(session, "wrk_1", ["cpu"], lease_seconds=1e-6)
    assert lease is not None
    assert lease.job_id == job_id

    assert store.record(lease, 1, NOTE) is JobStatus.RUNNING
    with store.database.write() as session:
        renew(session, lease, lease_seconds=60, runtime_seconds=1.0)
    assert expire(store, after_seconds=30) == 0


# --- ends -----------------------------------------------------------------------------------------


def test_a_finished_job_keeps_its_result_and_takes_no_more_reports(store: Store) -> None:
    lease = store.run()
    with store.database.write() as session:
        finish(session, lease, JobStatus.SUCCEEDED, message="done", runtime_seconds=12.5, result={"sparsity": 0.6})

    job = store.job(lease.job_id)
    assert (job.status, job.result, job.runtime_seconds) == ("succeeded", {"sparsity": 0.6}, 12.5)
    assert job.finished_at is not None
    assert store.log(lease.job_id)[-1].data["status"] == "succeeded"
    with pytest.raises(LeaseLost):
        store.record(lease, 1, NOTE)


def test_a_running_job_cannot_end_as_cancelled_when_nobody_asked(store: Store) -> None:
    lease = store.run()
    with pytest.raises(MoveNotAllowed), store.database.write() as session:
        finish(session, lease, JobStatus.CANCELLED, message="cancelled", runtime_seconds=99.0)

    job = store.job(lease.job_id)
    assert (job.status, job.runtime_seconds) == ("running", 0.0)


def test_a_job_that_ends_while_it_is_being_cancelled_has_succeeded(store: Store) -> None:
    lease = store.run()
    store.cancel(lease.job_id)
    with store.database.write() as session:
        finish(session, lease, JobStatus.SUCCEEDED, message="done", runtime_seconds=1.0)

    assert store.job(lease.job_id).status == "succeeded"


# --- losses ---------------------------------------------------------------------------------------


def test_a_lost_job_is_queued_again_until_it_was_lost_max_attempts_times(store: Store) -> None:
    job_id = store.queue(max_attempts=2)
    outcomes = []
    for _ in range(2):
        lease = store.claim()
        assert lease is not None
        with store.database.write() as session:
            lose(session, lease, message="the training process died (signal 9)", runtime_seconds=1.0)
        outcomes.append(store.job(job_id).status)

    assert outcomes == ["queued", "failed"]
    job = store.job(job_id)
    assert (job.losses, job.attempt, job.status_reason) == (2, 2, "worker_lost")
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert "signal 9" in job.error["message"]
    assert "max_attempts is 2" in job.error["message"]
    assert store.claim() is None


def test_draining_workers_never_use_up_a_jobs_attempts(store: Store) -> None:
    job_id = store.queue(max_attempts=1)
    for _ in range(3):
        lease = store.claim()
        assert lease is not None
        with store.database.write() as session:
            drain(session, lease)

    job = store.job(job_id)
    assert (job.status, job.losses, job.attempt, job.status_reason) == ("queued", 0, 3, "worker_draining")


@pytest.mark.parametrize(("asked", "becomes"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_drained_job_that_was_asked_to_stop_has_stopped(store: Store, asked: str, becomes: str) -> None:
    lease = store.run()
    (store.cancel if asked == "cancel" else store.pause)(lease.job_id)
    with store.database.write() as session:
        drain(session, lease)

    job = store.job(lease.job_id)
    assert (job.status, job.losses) == (becomes, 0)


def test_a_lease_is_respected_for_the_grace_past_its_end(store: Store) -> None:
    lease = store.run()

    assert expire(store, after_seconds=60 + 10 - 1) == 0
    assert store.job(lease.job_id).status == "running"
    assert expire(store, after_seconds=60 + 10 + 1) == 1
    assert store.job(lease.job_id).status == "queued"


def test_expired_leases_send_jobs_where_their_states_lead(store: Store) -> None:
    running, last_chance, cancelling, pausing = (
        store.run(),
        store.run(max_attempts=1),
        store.run(),
        store.run(),
    )
    waiting = store.queue()
    store.cancel(cancelling.job_id)
    store.pause(pausing.job_id)

    assert expire(store) == 4

    found = {name: store.job(lease.job_id) for name, lease in [
        ("running", running), ("last chance", last_chance), ("cancelling", cancelling), ("pausing", pausing)
    ]}  # fmt: skip
    assert {name: (job.status, job.status_reason) for name, job in found.items()} == {
        "running": ("queued", "worker_lost"),
        "last chance": ("failed", "worker_lost"),
        "cancelling": ("cancelled", "cancelled"),
        "pausing": ("paused", "worker_lost"),
    }
    assert store.job(waiting).status == "queued"
    assert store.log(running.job_id)[-1].message == (
        "worker wrk_1 stopped renewing its lease; queued again (1 of 3 attempts lost)"
    )
    assert expire(store) == 0


def test_reasons_tell_a_drain_from_a_loss(store: Store) -> None:
    lease = store.run()
    with store.database.write() as session:
        drain(session, lease)

    assert store.log(lease.job_id)[-1].data["reason"] == StatusReason.WORKER_DRAINING
