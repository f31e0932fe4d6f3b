"""The states of a job and of a dataset, and the only code that changes a job's state."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from jobstore.events import EventLevel, EventType, NewEvent, add_events

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from jobstore.tables import Job


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StatusReason(StrEnum):
    """Why a job is where it is; tells the user's errors from the service's."""

    USER_ERROR = "user_error"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_LOST = "worker_lost"
    WORKER_DRAINING = "worker_draining"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class DatasetStatus(StrEnum):
    AUDITING = "auditing"
    READY = "ready"
    INVALID = "invalid"


class VariantStatus(StrEnum):
    """A checkpoint's variant is made by one process, and is then ready or failed."""

    MAKING = "making"
    READY = "ready"
    FAILED = "failed"


_S = JobStatus
ALLOWED_MOVES: dict[JobStatus, frozenset[JobStatus]] = {
    _S.QUEUED: frozenset({_S.RUNNING, _S.CANCELLED, _S.PAUSED, _S.FAILED}),
    _S.RUNNING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.PAUSING, _S.CANCELLING, _S.QUEUED}),
    _S.PAUSING: frozenset({_S.PAUSED, _S.CANCELLING, _S.SUCCEEDED, _S.FAILED}),
    _S.CANCELLING: frozenset({_S.CANCELLED, _S.SUCCEEDED, _S.FAILED}),
    _S.PAUSED: frozenset({_S.QUEUED, _S.CANCELLED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}
FINAL_STATUSES: frozenset[JobStatus] = frozenset(status for status, to in ALLOWED_MOVES.items() if not to)
UNFINISHED_STATUSES: frozenset[JobStatus] = frozenset(JobStatus) - FINAL_STATUSES
LEASED_STATUSES: frozenset[JobStatus] = frozenset({_S.RUNNING, _S.PAUSING, _S.CANCELLING})


class MoveNotAllowed(Exception):
    """The job's state does not permit the move."""

    def __init__(self, status: JobStatus, to: JobStatus) -> None:
        super().__init__(f"a job that is {status} cannot become {to}")
        self.status = status
        self.to = to


def move(
    session: Session,
    job: Job,
    to: JobStatus,
    *,
    now: datetime,
    message: str,
    reason: StatusReason | None = None,
    error: dict[str, Any] | None = None,
) -> None:
    """Change the state of a job and log it as one event.

    `job` must have been read under its row lock (`jobs.lock`). Raises MoveNotAllowed.
    """
    status = JobStatus(job.status)
    if to not in ALLOWED_MOVES[status]:
        raise MoveNotAllowed(status, to)
    job.status = to
    job.status_reason = reason
    if error is not None:
        job.error = error
    if to is JobStatus.QUEUED:
        job.queued_at = now
        job.not_before = None
    if to is JobStatus.RUNNING and job.started_at is None:
        job.started_at = now
    if to in FINAL_STATUSES:
        job.finished_at = now
    if to not in LEASED_STATUSES:
        job.lease_token = None
        job.lease_expires_at = None
        job.worker_id = None
        job.worker_slot = None
    level = EventLevel.ERROR if to is JobStatus.FAILED else EventLevel.INFO
    data = {"status": to, "from": status, "reason": reason, "error": error}
    add_events(session, job, [NewEvent(EventType.STATE, message, data, level=level)], now=now)
