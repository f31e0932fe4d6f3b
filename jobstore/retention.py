"""How long the records of ended jobs are kept: a setting each for events and for metrics.

What has been done is remembered as the last job that was cleared, in the order in which jobs end, so that a pass looks
at none twice. Of the events those of the job's moves stay: they are few, and say what became of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, and_, delete, or_, select, true, tuple_

from jobstore.events import EventType
from jobstore.tables import Event, Job, Metric, Retention

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from jobstore.settings import Settings

ROWS_OF_A_PASS = 5000
JOBS_OF_A_PASS = 200


@dataclass(frozen=True)
class Record:
    """A kind of record: its table, the table's key, and which of a job's rows go."""

    name: str
    table: type[Event] | type[Metric]
    key: tuple[Any, ...]
    goes: ColumnElement[bool]


EVENTS = Record("events", Event, (Event.job_id, Event.seq), Event.type != EventType.STATE)
METRICS = Record("metrics", Metric, (Metric.job_id, Metric.name, Metric.step), true())


def clear_expired(session: Session, settings: Settings, *, now: datetime) -> int:
    """Delete some of the records whose time is over; returns how many. The next pass goes on from there."""
    deleted = 0
    for record, days in ((EVENTS, settings.event_retention_days), (METRICS, settings.metric_retention_days)):
        if days is not None:
            deleted += _clear(session, record, ended_before=now - timedelta(days=days))
    return deleted


def _clear(session: Session, record: Record, *, ended_before: datetime) -> int:
    done = session.get(Retention, record.name)
    ended = select(Job.id, Job.finished_at).where(Job.finished_at.is_not(None), Job.finished_at < ended_before)
    if done is not None:
        later = and_(Job.finished_at == done.finished_at, Job.id > done.job_id)
        ended = ended.where(Job.finished_at >= done.finished_at, or_(Job.finished_at > done.finished_at, later))
    jobs = session.execute(ended.order_by(Job.finished_at, Job.id).limit(JOBS_OF_A_PASS)).all()
    if not jobs:
        return 0
    of_jobs = record.table.job_id.in_([job.id for job in jobs])
    some = select(*record.key).where(of_jobs, record.goes).limit(ROWS_OF_A_PASS)
    deleted = session.execute(
        delete(record.table).where(tuple_(*record.key).in_(some)).execution_options(synchronize_session=False)
    )
    count = int(deleted.rowcount)  # type: ignore[attr-defined]
    if count == ROWS_OF_A_PASS:
        return count  # there may be more of these jobs'
    if done is None:
        session.add(Retention(record=record.name, finished_at=jobs[-1].finished_at, job_id=jobs[-1].id))
    else:
        done.finished_at, done.job_id = jobs[-1].finished_at, jobs[-1].id
    return count
