"""A clock that is set back keeps no job waiting: what was given before it is cut to what would be given now."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from jobstore.clock import shorten_implausible
from jobstore.database import now
from jobstore.leases import expire_leases
from jobstore.lifecycle import JobStatus
from jobstore.tables import Job, Leader
from jobstore.upkeep import lead

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store

LEASE, WAIT, GRACE = 60.0, 30.0, 10.0


def put(store: Store, job_id: str, **seconds_from_now: float) -> None:
    with store.database.write() as session:
        times = {name: now(session) + timedelta(seconds=seconds) for name, seconds in seconds_from_now.items()}
        session.execute(update(Job).where(Job.id == job_id).values(times))


def shorten(store: Store) -> None:
    with store.database.write() as session:
        shorten_implausible(session, now=now(session), lease_seconds=LEASE, wait_seconds=WAIT)


def seconds_left(store: Store, job_id: str, of: str) -> float:
    job = store.job(job_id)
    with store.database.read() as session:
        left: timedelta = getattr(job, of) - now(session)
    return left.total_seconds()


@pytest.mark.parametrize(("left", "stays"), [(3600.0, False), (LEASE, True), (5 * LEASE, True)])
def test_a_lease_from_before_the_jump_ends_as_a_new_one(store: Store, left: float, stays: bool) -> None:
    job_id = store.run().job_id
    put(store, job_id, lease_expires_at=left)
    shorten(store)
    assert seconds_left(store, job_id, "lease_expires_at") == pytest.approx(left if stays else LEASE, abs=5)
    assert store.job(job_id).status == JobStatus.RUNNING


def test_a_dead_workers_job_is_queued_again_after_the_jump(store: Store) -> None:
    job_id = store.run().job_id
    put(store, job_id, lease_expires_at=3600)
    shorten(store)
    with store.database.write() as session:
        later = now(session) + timedelta(seconds=LEASE + GRACE + 1)
        assert expire_leases(session, now=later, grace_seconds=GRACE) == 1
    assert store.job(job_id).status == JobStatus.QUEUED


@pytest.mark.parametrize(("losses", "expected"), [(1, WAIT), (3, 3 * WAIT)])
def test_a_job_that_is_put_off_waits_no_longer_than_it_was_to(store: Store, losses: int, expected: float) -> None:
    job_id = store.queue()
    put(store, job_id, not_before=3600)
    with store.database.write() as session:
        session.execute(update(Job).values(losses=losses))
    shorten(store)
    assert seconds_left(store, job_id, "not_before") == pytest.approx(expected, abs=5)
    shorten(store)
    assert seconds_left(store, job_id, "not_before") == pytest.approx(expected, abs=5)


def test_leadership_from_before_the_jump_is_taken(store: Store) -> None:
    def leads(holder: str) -> bool:
        with store.database.write() as session:
            return lead(session, holder, seconds=10)

    assert leads("dead")
    assert not leads("alive")
    with store.database.write() as session:
        session.execute(update(Leader).values(expires_at=now(session) + timedelta(hours=1)))
    assert leads("alive")
    assert not leads("another")
