from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from jobstore.database import now
from jobstore.tables import Worker
from jobstore.workers import DeviceClass, Slot, WorkerIdentity, alive, announce, forget_dead, retire, slots_of

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store


SLOTS = (
    Slot("cuda-0", (DeviceClass.CUDA, DeviceClass.AUTO), 3, gpu="GPU-1"),
    Slot("cpu-0", (DeviceClass.CPU,), 2),
)


@pytest.fixture
def worker() -> WorkerIdentity:
    return WorkerIdentity(SLOTS, {"cpus": 2})


def say(store: Store, worker: WorkerIdentity) -> None:
    with store.database.write() as session:
        announce(session, worker)


def living(store: Store) -> list[Worker]:
    with store.database.read() as session:
        return [*alive(session)]


def age(store: Store, worker: WorkerIdentity, by: timedelta) -> None:
    with store.database.write() as session:
        session.execute(update(Worker).where(Worker.id == worker.id).values(seen_at=now(session) - by))


def test_a_worker_that_announces_itself_is_alive_and_says_what_it_can_do(store: Store, worker: WorkerIdentity) -> None:
    say(store, worker)

    [row] = living(store)
    assert (row.id, row.hostname, row.pid) == (worker.id, worker.hostname, worker.pid)
    assert (slots_of(row), row.details) == ([*SLOTS], {"cpus": 2})
    assert row.started_at == row.seen_at


def test_a_second_sign_of_life_keeps_one_row_and_its_start(store: Store, worker: WorkerIdentity) -> None:
    say(store, worker)
    [first] = living(store)
    say(store, worker)
    [second] = living(store)

    assert second.started_at == first.started_at
    assert second.seen_at > first.seen_at


def test_a_worker_that_is_silent_for_half_a_minute_is_not_alive_until_it_speaks_again(
    store: Store, worker: WorkerIdentity
) -> None:
    say(store, worker)
    age(store, worker, timedelta(seconds=31))
    assert living(store) == []

    say(store, worker)
    assert [row.id for row in living(store)] == [worker.id]


def test_a_worker_that_stops_takes_its_row_along(store: Store, worker: WorkerIdentity) -> None:
    other = WorkerIdentity((), {})
    say(store, worker)
    say(store, other)
    with store.database.write() as session:
        retire(session, worker.id)

    assert [row.id for row in living(store)] == [other.id]


def test_rows_of_dead_workers_are_forgotten_after_a_day(store: Store, worker: WorkerIdentity) -> None:
    dead = WorkerIdentity((), {})
    for each in (worker, dead):
        say(store, each)
    age(store, dead, timedelta(days=1, seconds=1))
    age(store, worker, timedelta(hours=23))
    with store.database.write() as session:
        forget_dead(session, now=now(session))

    with store.database.read() as session:
        assert session.get(Worker, dead.id) is None
        assert session.get(Worker, worker.id) is not None
