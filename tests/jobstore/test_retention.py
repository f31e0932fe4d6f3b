from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select, update

from jobstore import retention
from jobstore.database import now
from jobstore.events import EventType, NewEvent
from jobstore.leases import finish
from jobstore.lifecycle import JobStatus
from jobstore.metrics import Point
from jobstore.retention import clear_expired
from jobstore.tables import Job, Metric

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store

DAY = timedelta(days=1)


def trained(store: Store, dataset: str, *, events: int = 3, points: int = 4, ended: bool = True) -> str:
    """A job with these many events and points beside its moves."""
    job_id = store.queue(dataset=dataset)
    lease = store.claim()
    assert lease is not None
    told = [NewEvent(EventType.PROGRESS, f"step {number}") for number in range(events)]
    store.record(lease, 1, *told, points=[Point("train_loss", step, 0.5) for step in range(points)])
    if ended:
        with store.database.write() as session:
            finish(session, lease, JobStatus.SUCCEEDED, message="done", runtime_seconds=1.0)
    return job_id


def age(store: Store, job_id: str, by: timedelta) -> None:
    with store.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(finished_at=now(session) - by))


def clear(store: Store, **days: Any) -> int:
    with store.database.write() as session:
        return clear_expired(session, store.settings.model_copy(update=days), now=now(session))


def left(store: Store, job_id: str) -> tuple[list[str], int]:
    """The types of a job's events, and how many points it has."""
    with store.database.read() as session:
        points = session.scalar(select(func.count()).select_from(Metric).where(Metric.job_id == job_id))
    return [event.type for event in store.log(job_id)], points or 0


MOVES = ["state", "state", "state"]
ALL = ["state", "state", "progress", "progress", "progress", "state"]


def test_all_is_kept_unless_somebody_says_how_long(store: Store) -> None:
    job_id = trained(store, store.dataset())
    age(store, job_id, 10_000 * DAY)
    assert clear(store) == 0
    assert left(store, job_id) == (ALL, 4)


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ({"event_retention_days": 7.0}, (MOVES, 4)),
        ({"metric_retention_days": 7.0}, (ALL, 0)),
        ({"event_retention_days": 7.0, "metric_retention_days": 9.0}, (MOVES, 4)),
        ({"event_retention_days": 7.0, "metric_retention_days": 7.0}, (MOVES, 0)),
    ],
)
def test_what_is_past_its_time_goes_and_the_jobs_moves_stay(
    store: Store, days: dict[str, float], expected: tuple[list[str], int]
) -> None:
    dataset = store.dataset()
    old, new, unfinished = trained(store, dataset), trained(store, dataset), trained(store, dataset, ended=False)
    age(store, old, 8 * DAY)
    age(store, new, 6 * DAY)
    clear(store, **days)

    assert left(store, old) == expected
    assert left(store, new) == (ALL, 4)
    assert left(store, unfinished) == (ALL[:-1], 4)


def test_a_pass_deletes_so_many_rows_and_the_next_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ROWS_OF_A_PASS", 5)
    dataset = store.dataset()
    jobs = [trained(store, dataset) for _ in range(3)]
    for job_id in jobs:
        age(store, job_id, 8 * DAY)

    passes = [clear(store, metric_retention_days=7.0) for _ in range(5)]
    assert passes == [5, 5, 2, 0, 0]
    assert [left(store, job_id)[1] for job_id in jobs] == [0, 0, 0]


def test_jobs_that_ended_at_the_same_moment_are_all_cleared(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "JOBS_OF_A_PASS", 2)
    dataset = store.dataset()
    jobs = [trained(store, dataset) for _ in range(5)]
    with store.database.write() as session:
        session.execute(update(Job).values(finished_at=now(session) - 8 * DAY))

    assert [clear(store, event_retention_days=7.0) for _ in range(4)] == [6, 6, 3, 0]
    assert all(left(store, job_id) == (MOVES, 4) for job_id in jobs)


def test_a_job_that_was_cleared_is_not_looked_at_again(store: Store) -> None:
    job_id = trained(store, store.dataset())
    age(store, job_id, 8 * DAY)
    assert clear(store, metric_retention_days=7.0) == 4
    with store.database.write() as session:
        session.add(Metric(job_id=job_id, tenant_id="default", name="late", step=1, value=1.0))

    assert clear(store, metric_retention_days=7.0) == 0
    assert left(store, job_id) == (ALL, 1)
