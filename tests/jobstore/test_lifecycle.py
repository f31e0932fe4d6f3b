from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobstore.database import now
from jobstore.jobs import lock
from jobstore.lifecycle import FINAL_STATUSES, LEASED_STATUSES, JobStatus, MoveNotAllowed, StatusReason, move

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store

# The table of states as it is promised to users; everything else is forbidden.
PROMISED = {
    "queued": {"running", "cancelled", "paused", "failed"},
    "running": {"succeeded", "failed", "pausing", "cancelling", "queued"},
    "pausing": {"paused", "cancelling", "succeeded", "failed"},
    "cancelling": {"cancelled", "succeeded", "failed"},
    "paused": {"queued", "cancelled"},
    "succeeded": set(),
    "failed": set(),
    "cancelled": set(),
}


@pytest.mark.parametrize("status", [*JobStatus])
def test_a_job_makes_the_promised_moves_and_no_others(store: Store, status: JobStatus) -> None:
    dataset = store.dataset()
    made = set()
    for to in JobStatus:
        job_id = store.queue(dataset=dataset)
        store.put_in(job_id, status)
        before = len(store.log(job_id))
        try:
            with store.database.write() as session:
                job = lock(session, job_id)
                assert job is not None
                move(session, job, to, now=now(session), message="moved")
        except MoveNotAllowed:
            assert store.job(job_id).status == status
            assert len(store.log(job_id)) == before
        else:
            made.add(str(to))
            assert store.job(job_id).status == to
            assert len(store.log(job_id)) == before + 1

    assert made == PROMISED[status]


def test_final_states_are_those_without_a_way_out() -> None:
    assert {"succeeded", "failed", "cancelled"} == FINAL_STATUSES
    assert {"running", "pausing", "cancelling"} == LEASED_STATUSES


def test_a_move_is_logged_with_where_from_where_to_and_why(store: Store) -> None:
    job_id = store.queue()
    error = {"type": "timeout", "code": "pending_timeout", "message": "no worker", "param": "/limits"}
    with store.database.write() as session:
        job = lock(session, job_id)
        assert job is not None
        moment = now(session)
        move(session, job, JobStatus.FAILED, now=moment, message="no worker", reason=StatusReason.TIMEOUT, error=error)

    first, second = store.log(job_id)
    assert (first.seq, first.message, first.data["from"], first.data["status"]) == (1, "queued", None, "queued")
    assert (second.seq, second.type, second.level, second.message) == (2, "state", "error", "no worker")
    assert second.data == {"status": "failed", "from": "queued", "reason": "timeout", "error": error}
    assert second.created_at == moment
    job = store.job(job_id)
    assert (job.status_reason, job.error, job.finished_at) == ("timeout", error, moment)


@pytest.mark.parametrize("to", [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.QUEUED])
def test_a_job_that_stops_running_has_no_lease_left(store: Store, to: JobStatus) -> None:
    lease = store.run()
    with store.database.write() as session:
        job = lock(session, lease.job_id)
        assert job is not None
        assert (job.lease_token, job.worker_id) == (lease.token, "wrk_1")
        move(session, job, to, now=now(session), message="stopped")

    job = store.job(lease.job_id)
    assert (job.lease_token, job.lease_expires_at, job.worker_id) == (None, None, None)


def test_a_job_keeps_its_lease_while_it_is_being_stopped(store: Store) -> None:
    lease = store.run()
    store.cancel(lease.job_id)

    job = store.job(lease.job_id)
    assert (job.status, job.lease_token) == ("cancelling", lease.token)


def test_the_first_start_and_the_attempts_are_remembered_over_a_second_claim(store: Store) -> None:
    lease = store.run()
    first = store.job(lease.job_id)
    with store.database.write() as session:
        job = lock(session, lease.job_id)
        assert job is not None
        move(session, job, JobStatus.QUEUED, now=now(session), message="again")
    again = store.claim("wrk_2")
    assert again is not None

    job = store.job(lease.job_id)
    assert job.started_at == first.started_at
    assert (first.attempt, job.attempt, again.attempt) == (1, 2, 2)
    assert job.queued_at > first.queued_at
