"""What a user asks of a job: cancel, pause, resume, retry. Asking again for the same changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from jobstore.database import now as database_now
from jobstore.jobs import NewJob, create_job
from jobstore.lifecycle import FINAL_STATUSES, JobStatus, StatusReason, move
from jobstore.metrics import copy_points
from jobstore.states import newest_step, share_states
from jobstore.tables import Job

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class NotPossible(Exception):
    """The job's state does not permit what was asked for; says what would."""

    def __init__(self, job: Job, why: str) -> None:
        super().__init__(f"job {job.id} is {job.status}: {why}")


def cancel(session: Session, job: Job) -> None:
    """Ask a job, read under its lock, to stop; harmless when it already stops or has ended.

    A job that no worker holds is cancelled at once; a running one when its worker has stopped it.
    """
    status = JobStatus(job.status)
    if status in FINAL_STATUSES or status is JobStatus.CANCELLING:
        return
    held = status in {JobStatus.RUNNING, JobStatus.PAUSING}
    to = JobStatus.CANCELLING if held else JobStatus.CANCELLED
    message = "cancellation requested" if held else f"cancelled while it was {status}"
    move(session, job, to, now=database_now(session), message=message, reason=StatusReason.CANCELLED)


def pause(session: Session, job: Job) -> None:
    """Ask a job, read under its lock, to give up its place; harmless when it already does. Raises NotPossible.

    A queued job is paused at once; a running one when its worker has saved its state.
    """
    status = JobStatus(job.status)
    if status in {JobStatus.PAUSING, JobStatus.PAUSED}:
        return
    if status not in {JobStatus.QUEUED, JobStatus.RUNNING}:
        raise NotPossible(job, "only a queued or running job can be paused")
    held = status is JobStatus.RUNNING
    to = JobStatus.PAUSING if held else JobStatus.PAUSED
    message = "pause requested" if held else "paused while it was queued"
    move(session, job, to, now=database_now(session), message=message)


def resume(session: Session, job: Job) -> None:
    """Queue a paused job, read under its lock, again; harmless when it waits or runs. Raises NotPossible."""
    status = JobStatus(job.status)
    if status in {JobStatus.QUEUED, JobStatus.RUNNING}:
        return
    if status is not JobStatus.PAUSED:
        raise NotPossible(job, "a job can be resumed once it is paused")
    move(session, job, JobStatus.QUEUED, now=database_now(session), message="resumed; queued again")


def unfinished_retry(session: Session, job: Job) -> Job | None:
    """The retry of a job, read under its lock, that has not ended yet, or None. Raises NotPossible."""
    if job.status not in {JobStatus.FAILED, JobStatus.CANCELLED}:
        raise NotPossible(job, "only a failed or cancelled job can be retried")
    return session.scalar(
        select(Job).where(Job.retry_of == job.id, Job.status.not_in([*FINAL_STATUSES])).order_by(Job.id).limit(1)
    )


def retry(session: Session, job: Job) -> Job:
    """A new job like an ended one, read under its lock, that goes on from its states as far as it has any."""
    again = create_job(
        session,
        NewJob(
            tenant_id=job.tenant_id,
            name=job.name,
            dataset_id=job.dataset_id,
            spec=job.spec,
            limits=job.limits,
            device_class=job.device_class,
            priority=job.priority,
            metadata=job.job_metadata,
            retry_of=job.id,
            micro_batches=job.micro_batches,
        ),
    )
    share_states(session, job, again)
    if (step := newest_step(session, again)) is not None:
        copy_points(session, job, again, up_to=step)
    return again
