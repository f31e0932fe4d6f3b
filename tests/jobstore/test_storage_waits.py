"""A job whose store is away is put off, ever longer, and loses nothing by it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from jobstore.control import resume
from jobstore.database import now
from jobstore.jobs import fail_overdue
from jobstore.leases import Lease, lose, wait_for_storage
from jobstore.tables import Job

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store


def wait(store: Store, lease: Lease | None) -> Job:
    """Put a job off, and return it."""
    assert lease is not None
    with store.database.write() as session:
        wait_for_storage(session, lease, message="no space left", runtime_seconds=1.0)
    return store.job(lease.job_id)


def pause_of(job: Job) -> float:
    assert job.not_before is not None
    return (job.not_before - job.queued_at).total_seconds()


def end_wait(store: Store) -> None:
    """Let as much time pass as jobs are put off by."""
    with store.database.write() as session:
        for job in session.scalars(select(Job).where(Job.not_before > now(session))):
            pause = job.not_before - job.queued_at
            job.queued_at, job.not_before = job.queued_at - pause, job.not_before - pause


def test_a_store_that_is_away_is_waited_for_longer_each_time_and_fails_no_job(store: Store) -> None:
    job_id = store.queue(max_attempts=1)
    pauses = []
    for _ in range(7):
        job = wait(store, store.claim())
        assert (job.status, job.status_reason, job.error, job.losses) == ("queued", "storage_unavailable", None, 0)
        assert job.not_before is not None
        assert store.log(job_id)[-1].message == (
            f"no space left; queued again, the next try is at {job.not_before:%Y-%m-%d %H:%M:%S} UTC"
        )
        assert store.claim() is None
        pauses.append(pause_of(job))
        end_wait(store)

    assert pauses == [30, 60, 120, 240, 300, 300, 300]
    assert store.claim() is not None


def test_once_the_store_has_taken_bytes_a_wait_is_a_first_one(store: Store) -> None:
    store.queue()
    for _ in range(3):
        job = wait(store, store.claim())
        end_wait(store)
    assert pause_of(job) == 120
    lease = store.claim()
    assert lease is not None
    store.save_state(lease, 1, 7)
    assert pause_of(wait(store, lease)) == 30


def test_losses_count_apart_from_waits_for_the_store(store: Store) -> None:
    store.queue(max_attempts=2)
    for _ in range(3):
        wait(store, store.claim())
        end_wait(store)
    lease = store.claim()
    assert lease is not None
    with store.database.write() as session:
        lose(session, lease, message="the training process died", runtime_seconds=1.0)
    job = store.job(lease.job_id)
    assert (job.status, job.losses, job.not_before) == ("queued", 1, None)


@pytest.mark.parametrize(("asked", "becomes"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_job_that_was_asked_to_stop_does_not_wait_for_the_store(store: Store, asked: str, becomes: str) -> None:
    lease = store.run()
    (store.cancel if asked == "cancel" else store.pause)(lease.job_id)
    assert wait(store, lease).status == becomes


def test_a_job_that_waits_for_the_store_can_be_paused_cancelled_and_overdue(store: Store) -> None:
    paused, cancelled, overdue = (wait(store, store.run(max_pending_seconds=seconds)).id for seconds in (None, None, 5))
    store.pause(paused)
    store.cancel(cancelled)
    with store.database.write() as session:
        fail_overdue(session, now=now(session) + timedelta(seconds=10))
    assert [store.job(job_id).status for job_id in (paused, cancelled, overdue)] == ["paused", "cancelled", "failed"]

    store.ask(resume, paused)
    lease = store.claim()
    assert lease is not None
    assert lease.job_id == paused
