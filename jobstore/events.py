"""The event log of a job: 1, 2, 3 … per job, without gaps.

The job's row carries the counter. Whoever adds events holds that row's lock (or, on SQLite, the
database's write lock), so order is total and a writer without the lease writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select

from jobstore.tables import Event

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from jobstore.tables import Job


class EventType(StrEnum):
    STATE = "state"
    PROGRESS = "progress"
    MASK_UPDATE = "mask_update"
    EPOCH = "epoch"
    CHECKPOINT = "checkpoint"
    MESSAGE = "message"


class EventLevel(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class NewEvent:
    """An event that has no number yet."""

    type: EventType
    message: str
    data: dict[str, Any] = field(default_factory=dict)
    level: EventLevel = EventLevel.INFO


def add_events(session: Session, job: Job, events: Sequence[NewEvent], *, now: datetime) -> None:
    """Append `events` to the log of a job that was read under its row lock."""
    if not events:
        return
    first = job.event_seq + 1
    job.event_seq += len(events)
    session.execute(
        insert(Event),
        [
            {
                "job_id": job.id,
                "tenant_id": job.tenant_id,
                "seq": first + offset,
                "created_at": now,
                "attempt": job.attempt,
                "type": event.type,
                "level": event.level,
                "message": event.message,
                "data": event.data,
            }
            for offset, event in enumerate(events)
        ],
    )


def events_after(session: Session, job_id: str, after: int, limit: int) -> Sequence[Event]:
    """The events of a job numbered above `after`, oldest first, at most `limit`."""
    return session.scalars(
        select(Event).where(Event.job_id == job_id, Event.seq > after).order_by(Event.seq).limit(limit)
    ).all()


def told_after(session: Session, job_id: str, step: int) -> dict[tuple[str, int], dict[str, Any]]:
    """What the log says of mask updates and epochs after this step: the data by type and step, the latest of each."""
    rows = session.execute(
        select(Event.type, Event.data)
        .where(
            Event.job_id == job_id,
            Event.type.in_([EventType.MASK_UPDATE, EventType.EPOCH]),
            Event.data["step"].as_integer() > step,
        )
        .order_by(Event.seq)
    )
    return {(row.type, row.data["step"]): row.data for row in rows}
