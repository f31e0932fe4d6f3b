"""Events of a job as they are listed and streamed."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from api.schemas.bodies import ResponseBody, UtcTime
from jobstore.events import EventLevel, EventType
from jobstore.tables import Event


class EventBody(ResponseBody):
    """One line of a job's log."""

    id: int = Field(description="1, 2, 3 … per job, without gaps; also the id of the server-sent event.")
    created_at: UtcTime
    attempt: int
    type: EventType
    level: EventLevel
    message: str
    data: dict[str, Any]


class EventPage(ResponseBody):
    """Events, oldest first."""

    data: list[EventBody]
    has_more: bool
    next: int | None = Field(description="Give it as `after` to get the next page; null at the end.")


def event_body(event: Event) -> EventBody:
    return EventBody(
        id=event.seq,
        created_at=event.created_at,
        attempt=event.attempt,
        type=EventType(event.type),
        level=EventLevel(event.level),
        message=event.message,
        data=event.data,
    )
