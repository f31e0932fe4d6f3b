"""The tailer alone, on a real store: what it holds while streams come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api.streaming import EventTailer, StreamStart
from jobstore.artifacts import new_artifact
from jobstore.control import cancel
from jobstore.database import Database, open_database
from jobstore.datasets import create_dataset
from jobstore.events import EventType, NewEvent, add_events
from jobstore.jobs import NewJob, create_job, lock
from jobstore.schema import upgrade
from jobstore.settings import Settings
from jobstore.storage import StoredBlob


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(Settings(data_dir=tmp_path))
    upgrade(opened)
    yield opened
    opened.close()


@pytest.fixture
def job_id(database: Database) -> str:
    with database.write() as session:
        artifact = new_artifact(session, "default", "datasets")
        dataset = create_dataset(
            session, tenant_id="default", name="x", media_type="text/csv", artifact_id=artifact.id,
            blob=StoredBlob("0" * 64, 0), audit_seconds=1,
        )  # fmt: skip
        limits = {"max_attempts": 3, "max_pending_seconds": None, "max_runtime_seconds": None}
        return create_job(session, NewJob("default", "x", dataset.id, {}, limits, "cpu")).id


def add(database: Database, job_id: str, count: int) -> None:
    with database.write() as session:
        job = lock(session, job_id)
        assert job is not None
        add_events(session, job, [NewEvent(EventType.MESSAGE, "x")] * count, now=job.created_at)


def end(database: Database, job_id: str) -> None:
    with database.write() as session:
        job = lock(session, job_id)
        assert job is not None
        cancel(session, job)


@asynccontextmanager
async def tailing(database: Database) -> AsyncIterator[EventTailer]:
    tailer = EventTailer(database)
    task = asyncio.create_task(tailer.run())
    try:
        yield tailer
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), ended


async def collect(tailer: EventTailer, start: StreamStart) -> list[int]:
    return [int(message.id or 0) async for message in tailer.stream(start)]


async def wait_for_watchers(tailer: EventTailer, count: int) -> None:
    while tailer.watchers != count:
        await asyncio.sleep(0.01)


def test_a_stream_far_behind_catches_up_and_then_follows(database: Database, job_id: str) -> None:
    add(database, job_id, 2500)

    async def story() -> None:
        async with tailing(database) as tailer:
            behind = asyncio.create_task(collect(tailer, StreamStart(job_id, 0, 2501)))
            ahead = asyncio.create_task(collect(tailer, StreamStart(job_id, 2501, 2501)))
            await wait_for_watchers(tailer, 2)
            add(database, job_id, 1200)
            end(database, job_id)
            assert await behind == list(range(1, 3703))
            assert await ahead == list(range(2502, 3703))
            assert tailer.watchers == 0

    asyncio.run(asyncio.wait_for(story(), 10))


def test_a_stream_that_is_cancelled_is_forgotten(database: Database, job_id: str) -> None:
    async def story() -> None:
        async with tailing(database) as tailer:
            streams = [asyncio.create_task(collect(tailer, StreamStart(job_id, 1, 1))) for _ in range(3)]
            await wait_for_watchers(tailer, 3)
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)
            assert tailer.watchers == 0

    asyncio.run(asyncio.wait_for(story(), 10))


def test_closing_ends_every_stream(database: Database, job_id: str) -> None:
    async def story() -> None:
        async with tailing(database) as tailer:
            streams = [asyncio.create_task(collect(tailer, StreamStart(job_id, 0, 1))) for _ in range(3)]
            await wait_for_watchers(tailer, 3)
            tailer.close()
            assert await asyncio.gather(*streams) == [[1]] * 3

    asyncio.run(asyncio.wait_for(story(), 10))


def test_a_place_beyond_the_log_is_its_end(database: Database, job_id: str) -> None:
    async def story() -> None:
        async with tailing(database) as tailer:
            stream = asyncio.create_task(collect(tailer, StreamStart(job_id, 1000, 1)))
            await wait_for_watchers(tailer, 1)
            end(database, job_id)
            assert await stream == [2]

    asyncio.run(asyncio.wait_for(story(), 10))
