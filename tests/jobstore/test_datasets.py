from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from jobstore.database import now
from jobstore.datasets import (
    DatasetInUse,
    delete_dataset,
    finish_audit,
    get_dataset,
    list_datasets,
    lock_dataset,
    renew_audits,
    take_stale_audits,
)
from jobstore.jobs import NewJob, create_job
from jobstore.lifecycle import FINAL_STATUSES, JobStatus
from jobstore.tables import Dataset, Job

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store


def row(store: Store, dataset_id: str) -> Dataset:
    with store.database.read() as session:
        return session.get_one(Dataset, dataset_id)


def delete(store: Store, dataset_id: str) -> None:
    with store.database.write() as session:
        dataset = lock_dataset(session, "default", dataset_id)
        assert dataset is not None
        delete_dataset(session, dataset)


def take(store: Store, *, after_seconds: float) -> list[str]:
    with store.database.write() as session:
        return take_stale_audits(session, now=now(session) + timedelta(seconds=after_seconds), audit_seconds=60)


def audit(store: Store, dataset_id: str, *, error: dict[str, object] | None = None) -> None:
    with store.database.write() as session:
        finish_audit(session, dataset_id, profile=None if error else {"rows": 7}, error=error)


def test_an_uploaded_dataset_is_audited_before_it_is_ready(store: Store) -> None:
    dataset_id = store.dataset(ready=False)
    dataset = row(store, dataset_id)
    assert dataset.artifact_id is not None
    assert (dataset.status, store.artifact_status(dataset.artifact_id)) == ("auditing", "published")

    audit(store, dataset_id)
    dataset = row(store, dataset_id)
    assert (dataset.status, dataset.profile, dataset.error, dataset.audit_expires_at) == (
        "ready", {"rows": 7}, None, None,
    )  # fmt: skip


def test_a_failed_audit_makes_it_invalid_and_says_why(store: Store) -> None:
    dataset_id = store.dataset(ready=False)
    audit(store, dataset_id, error={"code": "invalid_table"})

    dataset = row(store, dataset_id)
    assert (dataset.status, dataset.profile, dataset.error) == ("invalid", None, {"code": "invalid_table"})


def test_the_first_audit_to_end_decides(store: Store) -> None:
    dataset_id = store.dataset(ready=False)
    audit(store, dataset_id)
    audit(store, dataset_id, error={"code": "audit_timeout"})

    assert row(store, dataset_id).status == "ready"


def test_an_audit_whose_process_died_is_taken_over_once(store: Store) -> None:
    stale = store.dataset(ready=False)
    store.dataset()

    assert take(store, after_seconds=50) == []
    assert take(store, after_seconds=70) == [stale]
    assert take(store, after_seconds=70) == []
    assert take(store, after_seconds=200) == [stale]


def test_an_audit_that_goes_on_is_renewed_and_one_that_ended_stays_ended(store: Store) -> None:
    running, ended = store.dataset(ready=False), store.dataset()
    with store.database.write() as session:
        renew_audits(session, [running, ended], now=now(session), audit_seconds=600)

    assert take(store, after_seconds=70) == []
    assert take(store, after_seconds=601) == [running]
    assert row(store, ended).audit_expires_at is None


@pytest.mark.parametrize("status", [*JobStatus])
def test_a_dataset_is_deleted_only_when_no_unfinished_job_needs_it(store: Store, status: JobStatus) -> None:
    dataset_id = store.dataset()
    artifact_id = row(store, dataset_id).artifact_id
    assert artifact_id is not None
    job_id = store.queue(dataset=dataset_id)
    store.put_in(job_id, status)

    if status in FINAL_STATUSES:
        delete(store, dataset_id)
        assert store.artifact_status(artifact_id) == "deleting"
    else:
        with pytest.raises(DatasetInUse) as refusal:
            delete(store, dataset_id)
        assert refusal.value.job_id == job_id
        assert store.artifact_status(artifact_id) == "published"


def test_a_deleted_dataset_is_gone_for_its_tenant_while_old_jobs_still_name_it(store: Store) -> None:
    dataset_id = store.dataset()
    job_id = store.queue(dataset=dataset_id)
    store.put_in(job_id, JobStatus.SUCCEEDED)
    delete(store, dataset_id)

    with store.database.write() as session:
        assert get_dataset(session, "default", dataset_id) is None
        assert lock_dataset(session, "default", dataset_id) is None
        assert list_datasets(session, "default", limit=10).rows == []
    assert store.job(job_id).dataset_id == dataset_id


def test_an_audit_that_ends_after_the_deletion_changes_nothing(store: Store) -> None:
    dataset_id = store.dataset(ready=False)
    delete(store, dataset_id)
    audit(store, dataset_id)

    assert row(store, dataset_id).status == "auditing"
    assert take(store, after_seconds=10_000) == []


def test_datasets_are_listed_newest_first_per_tenant(store: Store) -> None:
    mine = [store.dataset() for _ in range(3)]
    other = store.dataset(tenant="other")

    with store.database.read() as session:
        first = list_datasets(session, "default", limit=2)
        rest = list_datasets(session, "default", limit=2, after=first.next)
        assert get_dataset(session, "default", other) is None
    assert sorted([dataset.id for dataset in (*first.rows, *rest.rows)]) == sorted(mine)
    assert rest.next is None


def test_a_job_created_while_its_dataset_is_being_deleted_keeps_it_or_is_refused(store: Store) -> None:
    """Whoever takes the dataset's lock first wins; a job on a deleted dataset never comes to be."""
    for _ in range(5):
        dataset_id = store.dataset()
        start = threading.Barrier(2)

        def create(dataset_id: str = dataset_id, start: threading.Barrier = start) -> None:
            start.wait()
            with store.database.write() as session:
                if lock_dataset(session, "default", dataset_id) is not None:
                    limits = {"max_attempts": 1, "max_pending_seconds": None, "max_runtime_seconds": None}
                    create_job(session, NewJob("default", "race", dataset_id, {}, limits, "cpu"))

        def remove(dataset_id: str = dataset_id, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                delete(store, dataset_id)
            except DatasetInUse:
                return

        threads = [threading.Thread(target=create), threading.Thread(target=remove)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        with store.database.read() as session:
            jobs = session.scalars(select(Job.id).where(Job.dataset_id == dataset_id)).all()
        deleted = row(store, dataset_id).deleted_at is not None
        assert deleted == (len(jobs) == 0)
