"""/v1/jobs/{job_id}/events"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.existence import JobId, existing_job
from api.schemas.events import EventPage, event_body
from api.services import ServicesDep
from api.streaming import NothingToStream, StreamStart
from jobstore.events import events_after
from jobstore.lifecycle import FINAL_STATUSES

router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["events"])
After = Annotated[int, Query(ge=0, le=2**63 - 1, description="Only events with a higher id.")]


@router.get("")
def list_events(
    services: ServicesDep,
    job_id: JobId,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most events of the page.")] = 100,
) -> EventPage:
    """The log of a job, oldest first."""
    with services.database.read() as session:
        existing_job(session, job_id)
        rows = events_after(session, job_id, after, limit + 1)
    data = [event_body(row) for row in rows[:limit]]
    has_more = len(rows) > limit
    return EventPage(data=data, has_more=has_more, next=data[-1].id if has_more else None)


def stream_start(
    services: ServicesDep,
    job_id: JobId,
    after: After = 0,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=2**63 - 1, description="Sent by an EventSource that comes back; overrides after.")
    ] = None,
) -> StreamStart:
    """Where the stream begins; refused here, before an answer has begun."""
    after = after if last_event_id is None else last_event_id
    with services.database.read() as session:
        job = existing_job(session, job_id)
    if job.status in FINAL_STATUSES and after >= job.event_seq:
        raise NothingToStream
    return StreamStart(job.id, after, job.event_seq)


@router.get(
    "/stream",
    response_class=EventSourceResponse,
    responses={204: {"description": "The job has ended and every event was seen: do not come back"}},
)
async def stream_events(
    services: ServicesDep, start: Annotated[StreamStart, Depends(stream_start)]
) -> AsyncIterator[ServerSentEvent]:
    """The log of a job as server-sent events, those so far and then live; ends after the final state.

    `id` is the event's number, `event` its type, `data` the event as the list shows it. A client that was
    cut off sends `Last-Event-ID` and misses nothing.
    """
    async for message in services.tailer.stream(start):
        yield message
