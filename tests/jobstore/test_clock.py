"""A clock that is set back keeps no job waiting, and one that is set forward takes none from a living worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text, update

from jobstore.clock import shorten_implausible
from jobstore.database import now
from jobstore.leases import Lease, expire_leases, renew
from jobstore.lifecycle import JobStatus
from jobstore.tables import Job, Leader
from jobstore.upkeep import Upkeep, lead
from jobstore.wakeups import Bell
from tests.chaos.clock import install_clock, turn_clock

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store

LEASE, WAIT, GRACE = 60.0, 30.0, 10.0
JUMP = 600.0
Forward = Callable[[float], None]


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


# --- set back -------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("left", "expected"), [(3600, 0), (WAIT / 2, WAIT / 2)])
def test_a_job_that_is_put_off_for_longer_than_the_longest_wait_waits_no_more(
    store: Store, left: float, expected: float
) -> None:
    job_id = store.queue()
    put(store, job_id, not_before=left)
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


# --- set forward ----------------------------------------------------------------------------------


@pytest.fixture
def forward(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Forward]:
    """Lets the database's clock go so many seconds ahead of the true time."""
    engine = store.database.engine
    if engine.dialect.name == "sqlite":
        ahead = timedelta()

        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return datetime.now(tz) + ahead

        def set_host(seconds: float) -> None:
            nonlocal ahead
            ahead = timedelta(seconds=seconds)

        monkeypatch.setattr("jobstore.database.datetime", Clock)
        yield set_host
        return
    url = engine.url.render_as_string(hide_password=False)
    install_clock(url)
    engine.dispose()  # connections made before know the true time alone
    yield lambda seconds: turn_clock(url, seconds)
    with store.database.write() as session:
        session.execute(text("DROP SCHEMA chaos CASCADE"))
        session.execute(text(f'ALTER DATABASE "{engine.url.database}" RESET search_path'))
    engine.dispose()


@pytest.fixture
def bell(store: Store) -> Iterator[Bell]:
    bell = Bell(store.settings)
    yield bell
    bell.close()


@pytest.fixture
def upkeep(store: Store, bell: Bell) -> Upkeep:
    return Upkeep(store.database, store.artifacts, bell, store.settings)


def keep(store: Store, lease: Lease) -> None:
    with store.database.write() as session:
        renew(session, lease, lease_seconds=LEASE, runtime_seconds=1.0)


def test_a_jump_forward_takes_no_job_from_its_worker(store: Store, upkeep: Upkeep, forward: Forward) -> None:
    lease = store.run(max_attempts=1)
    put(store, lease.job_id, lease_expires_at=20)
    assert upkeep.once()
    forward(JUMP)
    assert upkeep.once()
    assert seconds_left(store, lease.job_id, "lease_expires_at") == pytest.approx(20, abs=5)
    assert upkeep.once()

    job = store.job(lease.job_id)
    assert (job.status, job.losses) == (JobStatus.RUNNING, 0)
    keep(store, lease)


def test_whoever_leads_after_a_jump_forward_has_seen_it(
    store: Store, upkeep: Upkeep, bell: Bell, forward: Forward
) -> None:
    lease = store.run()
    other = Upkeep(store.database, store.artifacts, bell, store.settings)
    assert upkeep.once()
    assert not other.once()
    forward(JUMP)
    assert other.once()
    assert not upkeep.once()

    assert store.job(lease.job_id).losses == 0
    assert seconds_left(store, lease.job_id, "lease_expires_at") == pytest.approx(LEASE, abs=10)


def test_a_job_that_was_lost_before_a_jump_forward_is_queued(store: Store, upkeep: Upkeep, forward: Forward) -> None:
    lease = store.run()
    assert upkeep.once()
    put(store, lease.job_id, lease_expires_at=-GRACE - 1)
    forward(JUMP)
    assert upkeep.once()

    assert store.job(lease.job_id).status == JobStatus.QUEUED


def test_a_worker_that_dies_after_a_jump_forward_is_found_out_in_time(
    store: Store, upkeep: Upkeep, forward: Forward
) -> None:
    lease = store.run()
    assert upkeep.once()
    forward(JUMP)
    keep(store, lease)
    assert upkeep.once()

    assert seconds_left(store, lease.job_id, "lease_expires_at") == pytest.approx(LEASE, abs=10)


def test_time_that_passes_for_all_ends_leases(
    store: Store, upkeep: Upkeep, forward: Forward, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = store.run()
    assert upkeep.once()
    forward(JUMP)
    monkeypatch.setattr("jobstore.clock.monotonic", lambda: time.monotonic() + JUMP)
    assert upkeep.once()

    assert store.job(lease.job_id).status == JobStatus.QUEUED


def test_a_pass_that_fails_forgets_no_jump(
    store: Store, upkeep: Upkeep, forward: Forward, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = store.run()
    assert upkeep.once()
    forward(JUMP)

    def fail(*_: object, **__: object) -> None:
        raise OSError("the database is away")

    with monkeypatch.context() as failing, pytest.raises(OSError, match="away"):
        failing.setattr("jobstore.upkeep.expire_leases", fail)
        upkeep.once()
    assert upkeep.once()

    assert store.job(lease.job_id).losses == 0


@pytest.mark.parametrize(("left", "waits"), [(20.0, 20.0), (-1.0, -1.0 - JUMP)])
def test_a_job_that_is_put_off_waits_as_long_as_it_was_to(
    store: Store, upkeep: Upkeep, forward: Forward, left: float, waits: float
) -> None:
    job_id = store.queue()
    put(store, job_id, not_before=left)
    assert upkeep.once()
    forward(JUMP)
    assert upkeep.once()

    assert seconds_left(store, job_id, "not_before") == pytest.approx(waits, abs=10)
