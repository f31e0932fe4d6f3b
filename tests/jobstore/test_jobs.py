from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from jobstore.checkpoints import NewCheckpoint, NewEvaluation
from jobstore.database import now
from jobstore.events import EventType, NewEvent
from jobstore.jobs import (
    JobNotFinal,
    delete_job,
    fail_overdue,
    get_job,
    list_jobs,
    lock,
    unfinished_count,
)
from jobstore.lifecycle import JobStatus
from jobstore.metrics import Point
from jobstore.storage import StoredBlob
from jobstore.tables import Checkpoint, Event, Job, Metric, State

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store


def fail_those_overdue(store: Store, *, after_seconds: float) -> int:
    with store.database.write() as session:
        return fail_overdue(session, now=now(session) + timedelta(seconds=after_seconds))


def listed(store: Store, tenant: str = "default", **filters: object) -> list[str]:
    with store.database.read() as session:
        return [job.id for job in list_jobs(session, tenant, limit=100, **filters).rows]  # type: ignore[arg-type]


def test_a_new_job_is_queued_and_says_so_in_its_log(store: Store) -> None:
    job_id = store.queue(priority=3, metadata={"team": "demand"})

    job = store.job(job_id)
    assert (job.status, job.attempt, job.losses, job.event_seq) == ("queued", 0, 0, 1)
    assert (job.priority, job.job_metadata, job.started_at, job.finished_at) == (3, {"team": "demand"}, None, None)
    assert job.created_at == job.queued_at
    [event] = store.log(job_id)
    assert (event.seq, event.type, event.created_at) == (1, "state", job.created_at)


# --- unfinished -----------------------------------------------------------------------------------


def test_unfinished_jobs_are_counted_per_tenant(store: Store) -> None:
    dataset = store.dataset()
    for status in JobStatus:
        store.put_in(store.queue(dataset=dataset), status)
    store.queue(tenant="other")

    with store.database.read() as session:
        assert unfinished_count(session, "default") == 5
        assert unfinished_count(session, "other") == 1


def test_jobs_that_waited_longer_than_they_may_fail_with_a_timeout(store: Store) -> None:
    dataset = store.dataset()
    patient, brief, endless = (
        store.queue(dataset=dataset, max_pending_seconds=limit) for limit in (3600.0, 30.0, None)
    )
    running = store.run(dataset=dataset, priority=9, max_pending_seconds=1.0)

    assert fail_those_overdue(store, after_seconds=20) == 0
    assert fail_those_overdue(store, after_seconds=40) == 1

    statuses = {job_id: store.job(job_id).status for job_id in (patient, brief, endless, running.job_id)}
    assert statuses == {patient: "queued", brief: "failed", endless: "queued", running.job_id: "running"}
    job = store.job(brief)
    assert job.status_reason == "timeout"
    assert job.error == {
        "type": "timeout",
        "code": "pending_timeout",
        "message": "no worker took the job within max_pending_seconds = 30",
        "param": "/limits",
    }


def test_patient_jobs_do_not_hide_an_impatient_one_behind_them(store: Store) -> None:
    dataset = store.dataset()
    for _ in range(5):
        store.queue(dataset=dataset, max_pending_seconds=3600.0)
    brief = store.queue(dataset=dataset, max_pending_seconds=30.0)

    with store.database.write() as session:
        assert fail_overdue(session, now=now(session) + timedelta(seconds=60), batch=3) == 1
    assert store.job(brief).status == "failed"


# --- reading --------------------------------------------------------------------------------------


def test_a_list_can_be_narrowed_by_each_field(store: Store) -> None:
    dataset, another = store.dataset(), store.dataset()
    plain = store.queue(dataset=dataset)
    linear = store.queue(dataset=dataset, model="dlinear")
    dense = store.queue(dataset=dataset, method="dense")
    tagged = store.queue(dataset=another, metadata={"team": "demand", "run": 'a.b "c"'})
    store.put_in(dense, JobStatus.SUCCEEDED)

    assert set(listed(store)) == {plain, linear, dense, tagged}
    assert listed(store, model="dlinear") == [linear]
    assert listed(store, method="dense") == [dense]
    assert listed(store, status=JobStatus.SUCCEEDED) == [dense]
    assert listed(store, dataset_id=another) == [tagged]
    assert listed(store, metadata={"team": "demand"}) == [tagged]
    assert listed(store, metadata={"run": 'a.b "c"'}) == [tagged]
    assert listed(store, metadata={"team": "supply"}) == []
    assert listed(store, metadata={"team": "demand", "absent": "x"}) == []


def test_pages_follow_one_another_newest_first_and_end(store: Store) -> None:
    dataset = store.dataset()
    for _ in range(5):
        store.queue(dataset=dataset)
    seen: list[str] = []
    after = None
    sizes = []
    while True:
        with store.database.read() as session:
            found = list_jobs(session, "default", limit=2, after=after)
        seen += [job.id for job in found.rows]
        sizes.append(len(found.rows))
        after = found.next
        if after is None:
            break

    assert sizes == [2, 2, 1]
    assert seen == sorted(seen, reverse=True)
    assert len({*seen}) == 5


def test_a_full_last_page_has_no_next(store: Store) -> None:
    dataset = store.dataset()
    for _ in range(2):
        store.queue(dataset=dataset)
    with store.database.read() as session:
        assert list_jobs(session, "default", limit=2).next is None


def test_another_tenants_job_does_not_exist(store: Store) -> None:
    job_id = store.queue(tenant="other")

    with store.database.read() as session:
        assert get_job(session, "default", job_id) is None
        mine = get_job(session, "other", job_id)
    assert mine is not None
    assert listed(store) == []


# --- deleting -------------------------------------------------------------------------------------


def test_a_deleted_job_takes_its_log_numbers_checkpoints_and_states_along_and_leaves_other_jobs_alone(
    store: Store,
) -> None:
    leases = [store.run(), store.run()]
    artifacts, evaluations = ([store.artifact(), store.artifact()] for _ in range(2))
    states = [store.save_state(lease, 1, step=3) for lease in leases]
    blob = StoredBlob("0" * 64, 1)
    for lease, artifact_id, evaluation_id in zip(leases, artifacts, evaluations, strict=True):
        evaluation = NewEvaluation(evaluation_id, blob)
        new = NewCheckpoint(artifact_id, blob, 1, 1, True, True, 0.5, 0.1, None, {}, evaluation)
        store.record(
            lease, 2, NewEvent(EventType.MESSAGE, "note"), points=[Point("train_loss", 1, 0.5)], checkpoint=new
        )
        store.put_in(lease.job_id, JobStatus.FAILED)
    with store.database.write() as session:
        job = lock(session, leases[0].job_id)
        assert job is not None
        delete_job(session, job)

    with store.database.read() as session:
        for table in (Event, Metric, Checkpoint, State):
            assert session.scalars(select(table.job_id).distinct()).all() == [leases[1].job_id]
        assert session.scalar(select(func.count()).select_from(Job)) == 1
    for mine in (artifacts, evaluations, states):
        assert [store.artifact_status(artifact_id) for artifact_id in mine] == ["deleting", "published"]


@pytest.mark.parametrize(
    "status", [status for status in JobStatus if status not in {"succeeded", "failed", "cancelled"}]
)
def test_an_unfinished_job_is_not_deleted(store: Store, status: JobStatus) -> None:
    job_id = store.queue()
    store.put_in(job_id, status)
    with pytest.raises(JobNotFinal, match=f"is {status}; cancel it first"), store.database.write() as session:
        job = lock(session, job_id)
        assert job is not None
        delete_job(session, job)

    assert store.job(job_id).status == status
