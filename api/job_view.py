"""A job's row, and where it stands in the queue, as the API shows it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from api.schemas.jobs import JobBody, JobCurrent, JobError, JobProgress, JobQueue, JobUrls, Limits, ResumedFrom
from jobstore.database import now as database_now
from jobstore.lifecycle import JobStatus, StatusReason
from jobstore.tables import Job
from jobstore.turns import queue_positions
from jobstore.waits import Pace, paces
from jobstore.workers import DeviceClass


def show_jobs(session: Session, jobs: Sequence[Job]) -> list[JobBody]:
    """The jobs, with what each queued one waits for; as many queries for one as for a page."""
    queued = [job for job in jobs if job.status == JobStatus.QUEUED]
    if not queued:
        return [_job_body(job, None) for job in jobs]
    positions = queue_positions(session, queued)
    pace = paces(session, {DeviceClass(job.device_class) for job in queued})
    now = database_now(session) if any(job.not_before is not None for job in queued) else None
    # One that was claimed since it was read is next in what was read.
    queues = {job.id: _queue(job, positions.get(job.id, 0), pace[DeviceClass(job.device_class)], now) for job in queued}
    return [_job_body(job, queues.get(job.id)) for job in jobs]


def show_job(session: Session, job: Job) -> JobBody:
    return show_jobs(session, [job])[0]


def _queue(job: Job, jobs_ahead: int, pace: Pace, now: datetime | None) -> JobQueue:
    if now is not None and job.not_before is not None and job.not_before > now:
        waiting_for = f"the artifact store; the next try is at {job.not_before:%Y-%m-%d %H:%M:%S} UTC"
        return JobQueue(jobs_ahead=jobs_ahead, estimated_wait_seconds=None, waiting_for=waiting_for)
    if pace.slots:
        wait = pace.wait(jobs_ahead)
        seconds = None if wait is None else round(wait, 1)
        return JobQueue(jobs_ahead=jobs_ahead, estimated_wait_seconds=seconds, waiting_for=None)
    what = "any device" if job.device_class == DeviceClass.AUTO else f"device {job.device_class!r}"
    waiting_for = f"a worker for {what}: none is alive"
    return JobQueue(jobs_ahead=jobs_ahead, estimated_wait_seconds=None, waiting_for=waiting_for)


def _job_body(job: Job, queue: JobQueue | None) -> JobBody:
    url = f"/v1/jobs/{job.id}"
    return JobBody(
        id=job.id,
        name=job.name,
        status=JobStatus(job.status),
        status_reason=None if job.status_reason is None else StatusReason(job.status_reason),
        error=None if job.error is None else JobError.model_validate(job.error),
        spec=job.spec,
        dataset_id=job.dataset_id,
        device_class=DeviceClass(job.device_class),
        created_at=job.created_at,
        queued_at=job.queued_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        attempt=job.attempt,
        priority=job.priority,
        limits=Limits.model_validate(job.limits),
        progress=None if job.progress is None else JobProgress.model_validate(job.progress),
        queue=queue,
        current=None if job.current is None else JobCurrent.model_validate(job.current),
        result=job.result,
        resumed_from=None if job.resumed_from is None else ResumedFrom.model_validate(job.resumed_from),
        retry_of=job.retry_of,
        reproducible=job.reproducible,
        metadata=job.job_metadata,
        urls=JobUrls(
            events=f"{url}/events",
            stream=f"{url}/events/stream",
            metrics=f"{url}/metrics",
            checkpoints=f"{url}/checkpoints",
        ),
    )
