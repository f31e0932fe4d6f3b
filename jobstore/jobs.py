"""Queries on jobs: create, read, list, delete."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, extract, func, select

from jobstore.checkpoints import checkpoints_of, give_up_artifacts
from jobstore.database import now as database_now
from jobstore.events import EventType, NewEvent, add_events
from jobstore.ids import Prefix, new_id
from jobstore.lifecycle import (
    FINAL_STATUSES,
    UNFINISHED_STATUSES,
    JobStatus,
    StatusReason,
    move,
)
from jobstore.pages import Page, page
from jobstore.states import drop_states
from jobstore.tables import Checkpoint, Event, Job, Metric
from jobstore.turns import is_queued, take_a_place

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class JobNotFinal(Exception):
    """Only a job in a final state can be deleted."""

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(f"job {job_id} is {status}; cancel it first")


@dataclass(frozen=True)
class NewJob:
    """A job as it is asked for; `spec` is resolved and checked against the dataset."""

    tenant_id: str
    name: str
    dataset_id: str
    spec: dict[str, Any]
    limits: dict[str, Any]
    device_class: str
    priority: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    retry_of: str | None = None
    micro_batches: int = 1


def create_job(session: Session, new: NewJob) -> Job:
    """Insert a job as `queued`, with its first event."""
    now = database_now(session)
    job = Job(
        id=new_id(Prefix.JOB),
        tenant_id=new.tenant_id,
        name=new.name,
        dataset_id=new.dataset_id,
        spec=new.spec,
        limits=new.limits,
        job_metadata=dict(new.metadata),
        priority=new.priority,
        device_class=new.device_class,
        status=JobStatus.QUEUED,
        created_at=now,
        queued_at=now,
        attempt=0,
        losses=0,
        runtime_seconds=0.0,
        event_seq=0,
        report_seq=0,
        retry_of=new.retry_of,
        micro_batches=new.micro_batches,
    )
    session.add(job)
    session.flush()
    take_a_place(session, new.tenant_id)
    data = {"status": JobStatus.QUEUED, "from": None, "reason": None, "error": None}
    message = "queued" if new.retry_of is None else f"queued as a retry of {new.retry_of}"
    add_events(session, job, [NewEvent(EventType.STATE, message, data)], now=now)
    return job


def get_job(session: Session, tenant_id: str, job_id: str) -> Job | None:
    """The tenant's job, or None."""
    return session.scalar(select(Job).where(Job.id == job_id, Job.tenant_id == tenant_id))


def lock(session: Session, job_id: str) -> Job | None:
    """The job, read afresh under its row lock; None when there is none."""
    return session.scalar(
        select(Job).where(Job.id == job_id).with_for_update().execution_options(populate_existing=True)
    )


def list_jobs(
    session: Session,
    tenant_id: str,
    *,
    limit: int,
    after: str | None = None,
    status: JobStatus | None = None,
    dataset_id: str | None = None,
    model: str | None = None,
    method: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Page[Job]:
    """The tenant's jobs, newest first."""
    query = select(Job).where(Job.tenant_id == tenant_id)
    if status is not None:
        query = query.where(Job.status == status)
    if dataset_id is not None:
        query = query.where(Job.dataset_id == dataset_id)
    if model is not None:
        query = query.where(Job.spec["model"]["name"].as_string() == model)
    if method is not None:
        query = query.where(Job.spec["method"]["name"].as_string() == method)
    for key, value in (metadata or {}).items():
        query = query.where(Job.job_metadata[key].as_string() == value)
    return page(session, query, Job.id, limit=limit, after=after)


def unfinished_count(session: Session, tenant_id: str) -> int:
    """How many of the tenant's jobs have not reached a final state."""
    return (
        session.scalar(
            select(func.count())
            .select_from(Job)
            .where(Job.tenant_id == tenant_id, Job.status.in_([*UNFINISHED_STATUSES]))
        )
        or 0
    )


def delete_job(session: Session, job: Job) -> None:
    """Remove a job, read under its lock, with its log, metrics, checkpoints and states. Raises JobNotFinal."""
    if job.status not in FINAL_STATUSES:
        raise JobNotFinal(job.id, job.status)
    for checkpoint in checkpoints_of(session, job.id):
        give_up_artifacts(session, checkpoint)
    drop_states(session, job)
    for table in (Checkpoint, Metric, Event):
        session.execute(delete(table).where(table.job_id == job.id))
    session.delete(job)


def fail_overdue(session: Session, *, now: datetime, batch: int = 100) -> int:
    """Fail queued jobs that waited longer than their `max_pending_seconds`; returns how many."""
    limit = Job.limits["max_pending_seconds"].as_float()
    # SQLite counts whole seconds, so the rows it finds are looked at again below.
    candidates = session.scalars(
        select(Job)
        .where(is_queued(), extract("epoch", Job.queued_at) + limit < now.timestamp())
        .order_by(Job.queued_at)
        .limit(batch)
        .with_for_update(skip_locked=True)
    ).all()
    overdue = [job for job in candidates if (now - job.queued_at).total_seconds() > job.limits["max_pending_seconds"]]
    for job in overdue:
        message = f"no worker took the job within max_pending_seconds = {job.limits['max_pending_seconds']:g}"
        error = {"type": StatusReason.TIMEOUT, "code": "pending_timeout", "message": message, "param": "/limits"}
        move(session, job, JobStatus.FAILED, now=now, message=message, reason=StatusReason.TIMEOUT, error=error)
    return len(overdue)
