"""Events to many watchers: one tailer per process reads new rows once, whoever watches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import structlog
from anyio.to_thread import run_sync
from fastapi.sse import ServerSentEvent
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from api.schemas.events import event_body
from jobstore.database import Database
from jobstore.events import EventType, events_after
from jobstore.lifecycle import FINAL_STATUSES
from jobstore.tables import Event, Job

POLL_SECONDS = 0.25
RETRY_SECONDS = 2.0
PAGE_EVENTS = 500
RECENT_EVENTS = 1000
_log = structlog.get_logger(__name__)


class NothingToStream(Exception):
    """The job has ended and the client has every event: 204 tells an EventSource not to come back."""


@dataclass(frozen=True)
class StreamStart:
    """Where a stream begins: after event `after` of a job whose log had `last` events."""

    job_id: str
    after: int
    last: int


@dataclass(frozen=True)
class StreamedEvent:
    """An event as every watcher gets it, put into words once."""

    seq: int
    is_final: bool
    message: ServerSentEvent


@dataclass
class _Watch:
    """A job that someone watches: the cursor up to which its log was read, and its latest events."""

    cursor: int
    watchers: int = 0
    gone: bool = False
    recent: deque[StreamedEvent] = field(default_factory=lambda: deque(maxlen=RECENT_EVENTS))
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def since(self, last: int) -> list[StreamedEvent] | None:
        """The events above `last`; None when they reach further back than what is kept."""
        if last >= self.cursor:
            return []
        if not self.recent or self.recent[0].seq > last + 1:
            return None
        return [event for event in self.recent if event.seq > last]

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class EventTailer:
    """Polls the logs of watched jobs while there are any, and hands new events to their streams."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watches: dict[str, _Watch] = {}
        self._watched = asyncio.Event()
        self._closed = False

    @property
    def watchers(self) -> int:
        """Open streams."""
        return sum(watch.watchers for watch in self._watches.values())

    async def run(self) -> None:
        """Tail until cancelled."""
        while True:
            await self._watched.wait()
            try:
                cursors = {job_id: watch.cursor for job_id, watch in self._watches.items()}
                self._spread(cursors, await run_sync(self._read_new, cursors))
                await asyncio.sleep(POLL_SECONDS)
            except SQLAlchemyError as error:
                _log.warning("events_not_read", kind=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                # Whatever it was, the streams would wait for ever without the tailer.
                _log.exception("events_not_read")
                await asyncio.sleep(RETRY_SECONDS)

    def close(self) -> None:
        """End every stream; a client comes back with its Last-Event-ID."""
        self._closed = True
        for watch in self._watches.values():
            watch.wake()

    async def stream(self, start: StreamStart) -> AsyncIterator[ServerSentEvent]:
        """The events after `start.after`, those in the log first, until the final state's."""
        last = min(start.after, start.last)
        with self._watching(start) as watch:
            while not self._closed:
                # Taken before looking, so that a change between looking and waiting is not missed.
                changed = watch.changed
                events = watch.since(last)
                if events is None:
                    events = await run_sync(self._read_page, start.job_id, last)
                    if not events:
                        return
                for event in events:
                    yield event.message
                    last = event.seq
                    if event.is_final:
                        return
                if not events:
                    if watch.gone:
                        return
                    await changed.wait()

    @contextmanager
    def _watching(self, start: StreamStart) -> Iterator[_Watch]:
        watch = self._watches.setdefault(start.job_id, _Watch(cursor=start.last))
        watch.watchers += 1
        self._watched.set()
        try:
            yield watch
        finally:
            watch.watchers -= 1
            if not watch.watchers:
                with suppress(KeyError):
                    del self._watches[start.job_id]
            if not self._watches:
                self._watched.clear()

    def _read_new(self, cursors: Mapping[str, int]) -> dict[str, list[StreamedEvent] | None]:
        """New events by job; None for a job that is no more."""
        with self._database.read() as session:
            rows = session.execute(select(Job.id, Job.event_seq).where(Job.id.in_([*cursors])))
            heads = {row.id: row.event_seq for row in rows}
            return {
                job_id: _streamed(events_after(session, job_id, cursor, PAGE_EVENTS)) if job_id in heads else None
                for job_id, cursor in cursors.items()
                if heads.get(job_id) != cursor
            }

    def _read_page(self, job_id: str, after: int) -> list[StreamedEvent]:
        with self._database.read() as session:
            return _streamed(events_after(session, job_id, after, PAGE_EVENTS))

    def _spread(self, cursors: Mapping[str, int], news: Mapping[str, list[StreamedEvent] | None]) -> None:
        for job_id, events in news.items():
            watch = self._watches.get(job_id)
            # The last watcher may have left and another come while the rows were read.
            if watch is None or watch.cursor != cursors[job_id]:
                continue
            if events is None:
                watch.gone = True
            elif events:
                watch.recent.extend(events)
                watch.cursor = events[-1].seq
            watch.wake()


def _streamed(events: Sequence[Event]) -> list[StreamedEvent]:
    return [
        StreamedEvent(
            seq=event.seq,
            is_final=event.type == EventType.STATE and event.data.get("status") in FINAL_STATUSES,
            message=ServerSentEvent(raw_data=event_body(event).model_dump_json(), event=event.type, id=str(event.seq)),
        )
        for event in events
    ]
