"""What users may ask of a job, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from jobstore.control import NotPossible, pause, resume, retry, unfinished_retry
from jobstore.jobs import delete_job
from jobstore.leases import Beginning, finish, release
from jobstore.lifecycle import JobStatus, StatusReason
from jobstore.metrics import Point, read_series
from jobstore.tables import State

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store

# --- cancelling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.PAUSED])
def test_a_job_that_nobody_holds_is_cancelled_at_once(store: Store, status: JobStatus) -> None:
    job_id = store.queue()
    store.put_in(job_id, status)
    store.cancel(job_id)

    job = store.job(job_id)
    assert (job.status, job.status_reason) == ("cancelled", "cancelled")
    assert job.finished_at is not None


@pytest.mark.parametrize("status", [JobStatus.RUNNING, JobStatus.PAUSING])
def test_a_job_that_a_worker_holds_is_cancelled_by_its_worker(store: Store, status: JobStatus) -> None:
    lease = store.run()
    store.put_in(lease.job_id, status)
    store.cancel(lease.job_id)
    assert store.job(lease.job_id).status == "cancelling"

    with store.database.write() as session:
        finish(session, lease, JobStatus.CANCELLED, message="cancelled at step 7", runtime_seconds=1.0)
    assert store.job(lease.job_id).status == "cancelled"


@pytest.mark.parametrize(
    "status", [JobStatus.CANCELLING, JobStatus.CANCELLED, JobStatus.SUCCEEDED, JobStatus.FAILED], ids=str
)
def test_cancelling_what_stops_or_has_ended_changes_nothing(store: Store, status: JobStatus) -> None:
    job_id = store.queue()
    store.put_in(job_id, status)
    store.cancel(job_id)

    assert store.job(job_id).status == status
    assert len(store.log(job_id)) == 1


# --- pausing --------------------------------------------------------------------------------------


def test_a_queued_job_is_paused_at_once_and_queued_again_when_resumed(store: Store) -> None:
    job_id = store.queue()
    queued_at = store.job(job_id).queued_at
    store.pause(job_id)
    assert store.job(job_id).status == "paused"
    assert store.claim() is None

    store.ask(resume, job_id)
    job = store.job(job_id)
    assert (job.status, job.attempt, job.losses) == ("queued", 0, 0)
    assert job.queued_at > queued_at
    lease = store.claim()
    assert lease is not None
    assert lease.job_id == job_id


def test_a_running_job_is_paused_once_its_worker_gave_it_back_and_goes_on_from_its_state(store: Store) -> None:
    lease = store.run()
    store.pause(lease.job_id)
    assert store.job(lease.job_id).status == "pausing"
    store.save_state(lease, 1, step=7)
    with store.database.write() as session:
        release(session, lease, why="stopped", reason=StatusReason.WORKER_DRAINING, runtime_seconds=2.5)

    job = store.job(lease.job_id)
    assert (job.status, job.status_reason, job.lease_token, job.runtime_seconds) == ("paused", None, None, 2.5)
    assert store.log(lease.job_id)[-1].message == "paused; when resumed, it goes on after step 7"
    store.ask(resume, lease.job_id)
    again = store.claim("wrk_2")
    assert again is not None
    assert [state.step for state in again.states] == [7]
    assert (again.attempt, again.runtime_seconds, store.job(lease.job_id).losses) == (2, 2.5, 0)


def test_a_job_that_ends_while_it_is_being_paused_has_succeeded(store: Store) -> None:
    lease = store.run()
    store.pause(lease.job_id)
    with store.database.write() as session:
        finish(session, lease, JobStatus.SUCCEEDED, message="done", runtime_seconds=1.0)

    assert store.job(lease.job_id).status == "succeeded"


@pytest.mark.parametrize(
    ("what", "statuses"),
    [(pause, [JobStatus.PAUSING, JobStatus.PAUSED]), (resume, [JobStatus.QUEUED, JobStatus.RUNNING])],
)
def test_asking_again_changes_nothing(store: Store, what: object, statuses: list[JobStatus]) -> None:
    assert callable(what)
    for status in statuses:
        job_id = store.queue()
        store.put_in(job_id, status)
        store.ask(what, job_id)
        assert store.job(job_id).status == status
        assert len(store.log(job_id)) == 1


@pytest.mark.parametrize(
    ("what", "statuses"),
    [
        (pause, ["cancelling", "succeeded", "failed", "cancelled"]),
        (resume, ["pausing", "cancelling", "succeeded", "failed", "cancelled"]),
        (unfinished_retry, ["queued", "running", "pausing", "paused", "cancelling", "succeeded"]),
    ],
)
def test_what_the_state_does_not_permit_is_refused_with_the_state(
    store: Store, what: object, statuses: list[str]
) -> None:
    assert callable(what)
    for status in statuses:
        job_id = store.queue()
        store.put_in(job_id, JobStatus(status))
        with pytest.raises(NotPossible, match=f"job {job_id} is {status}: "):
            store.ask(what, job_id)
        assert store.job(job_id).status == status


# --- retrying -------------------------------------------------------------------------------------


def failed(store: Store, *steps: int) -> str:
    """A failed job with states and a loss of each step."""
    lease = store.run(priority=4, metadata={"team": "demand"}, max_attempts=2)
    for number, step in enumerate(steps, start=1):
        store.save_state(lease, number, step, points=[Point("train_loss", at, 1 / at) for at in range(1, step + 1)])
    store.record(lease, 9, points=[Point("train_loss", 99, 0.1)])
    with store.database.write() as session:
        finish(session, lease, JobStatus.FAILED, message="no memory", runtime_seconds=1.0)
    return lease.job_id


def losses(store: Store, job_id: str) -> list[int]:
    with store.database.read() as session:
        return [step for one in read_series(session, job_id, names=None, max_points=1000) for step in one.steps]


def test_a_retry_is_a_job_alike_that_goes_on_from_the_states_of_the_other(store: Store) -> None:
    job_id = failed(store, 4, 8)
    before = store.job(job_id)
    again = store.job(store.ask(retry, job_id).id)

    assert (again.status, again.attempt, again.losses, again.runtime_seconds) == ("queued", 0, 0, 0.0)
    assert again.retry_of == job_id
    fields = ("dataset_id", "name", "spec", "limits", "priority", "job_metadata", "device_class")
    assert [getattr(again, name) for name in fields] == [getattr(before, name) for name in fields]
    assert losses(store, again.id) == list(range(1, 9))
    lease = store.claim()
    assert lease is not None
    assert lease.job_id == again.id
    assert [(state.step, state.saved_by) for state in lease.states] == [(8, job_id), (4, job_id)]

    store.record(lease, 1, beginning=Beginning(lease.states[1], True))
    assert store.job(again.id).resumed_from == {"job_id": job_id, "step": 4}
    assert losses(store, again.id) == list(range(1, 5))


def test_the_retry_that_has_not_ended_is_the_retry(store: Store) -> None:
    job_id = failed(store)
    assert store.ask(unfinished_retry, job_id) is None
    first = store.ask(retry, job_id).id
    found = store.ask(unfinished_retry, job_id)
    assert found is not None
    assert found.id == first

    store.cancel(first)
    assert store.ask(unfinished_retry, job_id) is None


def test_states_that_two_jobs_share_go_with_the_last_one(store: Store) -> None:
    job_id = failed(store, 4)
    again = store.ask(retry, job_id).id
    lease = store.claim()
    assert lease is not None
    with store.database.read() as session:
        shared = session.scalars(select(State.artifact_id)).first()
    assert shared is not None

    store.save_state(lease, 1, 5)
    store.save_state(lease, 2, 6)
    assert (store.steps_of_states(job_id), store.steps_of_states(again)) == ([4], [6, 5])
    assert store.artifact_status(shared) == "published"
    store.ask(delete_job, job_id)
    assert store.artifact_status(shared) == "deleting"
