"""Who may write what about a running job: claim, renew, record, release.

A lease is a random token in the job's row. Every write of a worker goes through that row: no token,
no write. A worker that slept past its lease finds the token gone and writes nothing more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import bindparam, select

from jobstore.checkpoints import NewCheckpoint, add_checkpoint, checkpoint_saved
from jobstore.database import now as database_now
from jobstore.events import EventLevel, EventType, NewEvent, add_events
from jobstore.lifecycle import LEASED_STATUSES, JobStatus, StatusReason, move
from jobstore.metrics import Point, forget_points, write_points
from jobstore.states import NewState, SavedState, add_state, drop_state, drop_states, newest_step, states_of
from jobstore.tables import Artifact, Dataset, Job
from jobstore.turns import lock_next, note_served

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.orm import Session


STORAGE_PAUSE_SECONDS, LONGEST_STORAGE_PAUSE_SECONDS = 30.0, 300.0


class LeaseLost(Exception):
    """Another worker owns the job now, or nobody does; nothing was written."""


@dataclass(frozen=True)
class Lease:
    """The right to run one attempt of one job."""

    job_id: str
    token: str
    attempt: int
    spec: dict[str, Any]
    limits: dict[str, Any]
    runtime_seconds: float
    dataset_key: str
    dataset_sha256: str
    states: Sequence[SavedState]  # newest first
    reproducible: bool | None  # what the attempt before said
    micro_batches: int


@dataclass(frozen=True)
class Beginning:
    """Where the training of an attempt begins; `state` is what it goes on from, None the first step."""

    state: SavedState | None
    reproducible: bool


@dataclass(frozen=True)
class Report:
    """What a worker has to tell since its last report; None leaves a field as it is.

    `number` counts the reports of an attempt from 1, so that a report whose commit succeeded but was
    never acknowledged is not written again.
    """

    number: int
    events: Sequence[NewEvent] = ()
    points: Sequence[Point] = ()
    progress: dict[str, Any] | None = None
    current: dict[str, Any] | None = None
    checkpoint: NewCheckpoint | None = None
    state: NewState | None = None
    beginning: Beginning | None = None


def claim_next(
    session: Session, worker: str, device_classes: Collection[str], *, lease_seconds: float, slot: str | None = None
) -> Lease | None:
    """Take the queued job whose turn it is for a slot of a worker, or None when there is none."""
    now = database_now(session)
    job = lock_next(session, device_classes, now=now)
    if job is None:
        return None
    note_served(session, job.tenant_id)
    job.attempt += 1
    job.lease_token = uuid4().hex
    job.lease_expires_at = now + timedelta(seconds=lease_seconds)
    job.worker_id = worker
    job.worker_slot = slot
    job.report_seq = 0
    job.progress = None
    job.current = None
    move(session, job, JobStatus.RUNNING, now=now, message=f"attempt {job.attempt} started on {worker}")
    artifact = session.execute(_bytes_of_dataset(), {"dataset": job.dataset_id}).one()
    return Lease(
        job_id=job.id,
        token=job.lease_token,
        attempt=job.attempt,
        spec=job.spec,
        limits=job.limits,
        runtime_seconds=job.runtime_seconds,
        dataset_key=artifact.key,
        dataset_sha256=artifact.sha256 or "",
        states=states_of(session, job),
        reproducible=job.reproducible,
        micro_batches=job.micro_batches,
    )


# Put together once: it is part of every claim.
@cache
def _bytes_of_dataset() -> Select[str, str | None]:
    return (
        select(Artifact.key, Artifact.sha256)
        .join(Dataset, Dataset.artifact_id == Artifact.id)
        .where(Dataset.id == bindparam("dataset"))
    )


def locked(session: Session, lease: Lease) -> Job:
    """The job of a lease, read afresh under its row lock. Raises LeaseLost."""
    job = session.scalar(
        select(Job)
        .where(Job.id == lease.job_id, Job.lease_token == lease.token)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if job is None:
        raise LeaseLost(lease.job_id)
    return job


def renew(session: Session, lease: Lease, *, lease_seconds: float, runtime_seconds: float) -> None:
    """Own the job for another `lease_seconds` from now. Raises LeaseLost."""
    job = locked(session, lease)
    job.lease_expires_at = database_now(session) + timedelta(seconds=lease_seconds)
    job.runtime_seconds = runtime_seconds


def status_of(session: Session, lease: Lease) -> JobStatus:
    """The job's state, read without a lock. Raises LeaseLost."""
    status = session.scalar(select(Job.status).where(Job.id == lease.job_id, Job.lease_token == lease.token))
    if status is None:
        raise LeaseLost(lease.job_id)
    return JobStatus(status)


def record(session: Session, lease: Lease, report: Report) -> JobStatus:
    """Write a report, whole and once, and return the job's state, in which a request to stop shows.

    Raises LeaseLost.
    """
    job = locked(session, lease)
    if report.number <= job.report_seq:
        return JobStatus(job.status)
    job.report_seq = report.number
    if report.beginning is not None:
        _begin(session, job, report.beginning)
    events = [*report.events]
    if report.checkpoint is not None:
        checkpoint = add_checkpoint(session, job, report.checkpoint)
        events.append(checkpoint_saved(checkpoint, report.checkpoint))
    add_events(session, job, events, now=database_now(session))
    write_points(session, job, report.points)
    # With all that was heard before it: who goes on from a state misses nothing of what led there.
    if report.state is not None:
        add_state(session, job, report.state)
    if report.checkpoint is not None or report.state is not None:
        # The store takes bytes: the next wait for it is a first one.
        job.not_before = None
    if report.progress is not None:
        job.progress = report.progress
    if report.current is not None:
        job.current = report.current
    return JobStatus(job.status)


def _begin(session: Session, job: Job, beginning: Beginning) -> None:
    """An attempt's training begins; what a lost one wrote of later steps is overwritten as they are done again."""
    state = beginning.state
    forget_points(session, job, after=state.step if state else 0)
    job.resumed_from = {"job_id": state.saved_by, "step": state.step} if state else None
    job.reproducible = beginning.reproducible


def finish(
    session: Session,
    lease: Lease,
    to: JobStatus,
    *,
    message: str,
    runtime_seconds: float,
    reason: StatusReason | None = None,
    error: dict[str, Any] | None = None,
    result: dict[str, Any] | None = None,
) -> None:
    """End the attempt in a final state and give up the lease. Raises LeaseLost."""
    job = locked(session, lease)
    job.runtime_seconds = runtime_seconds
    if result is not None:
        job.result = result
    if to is JobStatus.SUCCEEDED:
        drop_states(session, job)
    move(session, job, to, now=database_now(session), message=message, reason=reason, error=error)


def release(session: Session, lease: Lease, *, why: str, reason: StatusReason, runtime_seconds: float) -> None:
    """Give back a job whose training was stopped: queued again, or where it was asked to be; no loss. Raises LeaseLost.

    `why` and `reason` say why it was stopped, unless a user asked for it.
    """
    job = locked(session, lease)
    job.runtime_seconds = runtime_seconds
    now, step = database_now(session), newest_step(session, job)
    then = "it starts over" if step is None else f"it goes on after step {step}"
    if job.status == JobStatus.RUNNING:
        move(session, job, JobStatus.QUEUED, now=now, message=f"{why}; queued again, {then}", reason=reason)
    elif job.status == JobStatus.PAUSING:
        move(session, job, JobStatus.PAUSED, now=now, message=f"paused; when resumed, {then}")
    else:
        settle_loss(session, job, now=now, message=why)


def release_smaller(session: Session, lease: Lease, *, why: str, runtime_seconds: float) -> None:
    """Give back a job that ran out of memory, to be trained with batches in twice as many parts. Raises LeaseLost."""
    locked(session, lease).micro_batches *= 2
    release(session, lease, why=why, reason=StatusReason.OUT_OF_MEMORY, runtime_seconds=runtime_seconds)


def discard_state(session: Session, lease: Lease, step: int, why: str) -> None:
    """Give up a state that no training can go on from, and say so in the job's log. Raises LeaseLost."""
    job = locked(session, lease)
    drop_state(session, job, step)
    message = f"the state saved after step {step} cannot be used: {why}"
    event = NewEvent(EventType.MESSAGE, message, level=EventLevel.WARNING)
    add_events(session, job, [event], now=database_now(session))


def lose(session: Session, lease: Lease, *, message: str, runtime_seconds: float) -> None:
    """The training process died: back to the queue, or failed after too many losses. Raises LeaseLost."""
    job = locked(session, lease)
    job.runtime_seconds = runtime_seconds
    settle_loss(session, job, now=database_now(session), message=message)


def wait_for_storage(session: Session, lease: Lease, *, message: str, runtime_seconds: float) -> None:
    """The artifact store failed: no loss, but the next attempt is put off, ever longer. Raises LeaseLost."""
    job = locked(session, lease)
    job.runtime_seconds = runtime_seconds
    now, reason = database_now(session), StatusReason.STORAGE_UNAVAILABLE
    if _stop_as_asked(session, job, now=now, message=message, reason=reason):
        return
    # As long as nothing was stored, the last pause shows in the job's times.
    last = (job.not_before - job.queued_at).total_seconds() if job.not_before is not None else 0.0
    pause = min(max(STORAGE_PAUSE_SECONDS, 2 * last), LONGEST_STORAGE_PAUSE_SECONDS)
    at = now + timedelta(seconds=pause)
    text = f"{message}; queued again, the next try is at {at:%Y-%m-%d %H:%M:%S} UTC"
    move(session, job, JobStatus.QUEUED, now=now, message=text, reason=reason)
    job.not_before = at


def expire_leases(session: Session, *, now: datetime, grace_seconds: float, batch: int = 100) -> int:
    """Take jobs away from workers whose lease ended longer than the grace ago; returns how many."""
    expired = session.scalars(
        select(Job)
        .where(
            Job.status.in_([*LEASED_STATUSES]),
            Job.lease_expires_at < now - timedelta(seconds=grace_seconds),
        )
        .order_by(Job.lease_expires_at)
        .limit(batch)
        .with_for_update(skip_locked=True)
    ).all()
    for job in expired:
        message = f"worker {job.worker_id} stopped renewing its lease"
        settle_loss(session, job, now=now, message=message)
    return len(expired)


def settle_loss(session: Session, job: Job, *, now: datetime, message: str) -> None:
    """Move a job that lost its worker, its training process or its GPU to where its state and its losses lead."""
    reason = StatusReason.WORKER_LOST
    if _stop_as_asked(session, job, now=now, message=message, reason=reason):
        return
    job.losses += 1
    allowed = job.limits["max_attempts"]
    if job.losses >= allowed:
        text = f"{message}; lost {job.losses} times, max_attempts is {allowed}"
        error = {"type": reason, "code": "worker_lost", "message": text, "param": None}
        move(session, job, JobStatus.FAILED, now=now, message=text, reason=reason, error=error)
    else:
        text = f"{message}; queued again ({job.losses} of {allowed} attempts lost)"
        move(session, job, JobStatus.QUEUED, now=now, message=text, reason=reason)


def _stop_as_asked(session: Session, job: Job, *, now: datetime, message: str, reason: StatusReason) -> bool:
    """Move a job that nobody trains any more to where it was asked to be; False when nobody asked."""
    status = JobStatus(job.status)
    if status is JobStatus.CANCELLING:
        move(session, job, JobStatus.CANCELLED, now=now, message="cancelled", reason=StatusReason.CANCELLED)
    elif status is JobStatus.PAUSING:
        move(session, job, JobStatus.PAUSED, now=now, message=message, reason=reason)
    else:
        return False
    return True
