"""Whose turn it is."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from jobstore.leases import claim_next
from jobstore.lifecycle import JobStatus
from jobstore.tables import Artifact, Dataset, Job

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store


def test_an_empty_queue_gives_nothing(store: Store) -> None:
    assert store.claim() is None


def test_the_highest_priority_goes_first_and_among_equals_the_oldest(store: Store) -> None:
    dataset = store.dataset()
    jobs = {
        name: store.queue(dataset=dataset, priority=priority)
        for name, priority in [("old", 0), ("low", -5), ("new", 0), ("urgent", 7)]
    }
    # Age is the time of queueing, whatever the identifiers say.
    with store.database.write() as session:
        job = session.get_one(Job, jobs["new"])
        job.queued_at -= timedelta(hours=1)

    claimed = [lease.job_id for lease in iter(store.claim, None)]

    names = {job_id: name for name, job_id in jobs.items()}
    assert [names[job_id] for job_id in claimed] == ["urgent", "new", "old", "low"]


def test_a_worker_takes_only_jobs_of_its_device_classes(store: Store) -> None:
    dataset = store.dataset()
    for_gpu, for_any, for_cpu = (store.queue(dataset=dataset, device=device) for device in ("cuda", "auto", "cpu"))

    by_cpu = [lease.job_id for lease in iter(lambda: store.claim(devices=("cpu", "auto")), None)]
    assert by_cpu == [for_any, for_cpu]
    assert store.claim(devices=("cpu",)) is None

    lease = store.claim(devices=("cuda", "auto"))
    assert lease is not None
    assert lease.job_id == for_gpu


def test_only_queued_jobs_are_claimed(store: Store) -> None:
    dataset = store.dataset()
    for status in JobStatus:
        if status is not JobStatus.QUEUED:
            store.put_in(store.queue(dataset=dataset), status)

    assert store.claim() is None


def test_a_lease_carries_what_a_worker_needs(store: Store) -> None:
    dataset = store.dataset()
    job_id = store.queue(dataset=dataset, max_attempts=2)
    lease = store.claim("wrk_9")
    assert lease is not None

    with store.database.read() as session:
        artifact = session.scalars(
            select(Artifact).join(Dataset, Dataset.artifact_id == Artifact.id).where(Dataset.id == dataset)
        ).one()
    assert (lease.job_id, lease.attempt, lease.runtime_seconds) == (job_id, 1, 0.0)
    assert lease.spec == {"model": {"name": "nstransformer"}, "method": {"name": "pals"}}
    assert lease.limits["max_attempts"] == 2
    assert (lease.dataset_key, lease.dataset_sha256) == (artifact.key, artifact.sha256)
    job = store.job(job_id)
    assert (job.status, job.worker_id, job.lease_token) == ("running", "wrk_9", lease.token)
    assert job.started_at is not None
    assert job.lease_expires_at == job.started_at + timedelta(seconds=60)


def test_no_two_of_eight_claimers_get_the_same_of_fifty_jobs(store: Store) -> None:
    dataset = store.dataset()
    jobs = {store.queue(dataset=dataset) for _ in range(50)}
    taken: dict[str, list[str]] = {f"wrk_{index}": [] for index in range(8)}
    failures: list[BaseException] = []
    start = threading.Barrier(len(taken))

    def work(worker: str) -> None:
        try:
            start.wait()
            while lease := store.claim(worker):
                taken[worker].append(lease.job_id)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    claimed = [job_id for mine in taken.values() for job_id in mine]
    assert sorted(claimed) == sorted(jobs)
    with store.database.read() as session:
        rows = session.execute(select(Job.id, Job.worker_id, Job.attempt)).all()
    assert {job_id: worker for job_id, worker, _ in rows} == {
        job_id: worker for worker, mine in taken.items() for job_id in mine
    }
    assert {attempt for _, _, attempt in rows} == {1}


def test_a_row_that_another_worker_is_just_taking_is_passed_over(store: Store) -> None:
    """On SQLite the second claimer waits for the first one's transaction instead, and finds the same."""
    dataset = store.dataset()
    first, second = store.queue(dataset=dataset), store.queue(dataset=dataset)
    other: list[str | None] = []

    def claim() -> None:
        lease = store.claim("wrk_2")
        other.append(lease.job_id if lease else None)

    thread = threading.Thread(target=claim)
    with store.database.write() as session:
        mine = claim_next(session, "wrk_1", ("cpu",), lease_seconds=60)
        thread.start()
        if session.get_bind().dialect.name == "postgresql":
            thread.join()
    thread.join()

    assert mine is not None
    assert (mine.job_id, other) == (first, [second])


def test_a_new_attempt_starts_without_the_progress_of_the_lost_one(store: Store) -> None:
    lease = store.run()
    store.record(lease, 1, progress={"step": 1}, current={"train_loss": 0.5})
    with store.database.write() as session:
        session.execute(update(Job).where(Job.id == lease.job_id).values(status="queued", lease_token=None))
    assert store.claim() is not None

    job = store.job(lease.job_id)
    assert (job.progress, job.current) == (None, None)
