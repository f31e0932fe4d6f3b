from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from jobstore.database import now
from jobstore.events import EventLevel, EventType, NewEvent, add_events, events_after
from jobstore.jobs import lock
from jobstore.leases import Lease

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store


def message(text: str) -> NewEvent:
    return NewEvent(EventType.MESSAGE, text)


def test_events_are_numbered_from_one_without_gaps(store: Store) -> None:
    lease = store.run()
    store.record(lease, 1, message("a"), message("b"))
    store.record(lease, 2, NewEvent(EventType.EPOCH, "c", {"epoch": 1}, level=EventLevel.WARNING))

    log = store.log(lease.job_id)
    assert [event.seq for event in log] == [1, 2, 3, 4, 5]
    assert [event.message for event in log] == ["queued", "attempt 1 started on wrk_1", "a", "b", "c"]
    assert (log[-1].type, log[-1].level, log[-1].data, log[-1].attempt) == ("epoch", "warning", {"epoch": 1}, 1)
    assert store.job(lease.job_id).event_seq == 5


def test_numbers_stay_gap_free_while_workers_and_the_api_write_at_the_same_time(store: Store) -> None:
    leases = [store.run() for _ in range(2)]
    failures: list[BaseException] = []

    def work(lease: Lease) -> None:
        for number in range(1, 16):
            store.record(lease, number, *(message(f"{number}.{part}") for part in range(number % 3)))

    def cancel(lease: Lease) -> None:
        for _ in range(5):
            store.cancel(lease.job_id)

    def comment(lease: Lease) -> None:
        for index in range(10):
            with store.database.write() as session:
                job = lock(session, lease.job_id)
                assert job is not None
                add_events(session, job, [message(f"note {index}")], now=now(session))

    def guarded(action: object, lease: Lease) -> None:
        try:
            assert callable(action)
            action(lease)
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=guarded, args=(action, lease)) for lease in leases for action in (work, cancel, comment)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    for lease in leases:
        log = store.log(lease.job_id)
        # Queued, claimed, cancelled once; 15 recorded; 10 comments.
        assert [event.seq for event in log] == [*range(1, 3 + 15 + 10 + 1)]
        assert store.job(lease.job_id).event_seq == len(log)
        assert [event.message for event in log].count("cancellation requested") == 1
        recorded = [event.message for event in log if "." in event.message]
        assert recorded == [f"{number}.{part}" for number in range(1, 16) for part in range(number % 3)]


def test_a_transaction_that_fails_leaves_no_gap(store: Store) -> None:
    lease = store.run()
    try:
        with store.database.write() as session:
            job = lock(session, lease.job_id)
            assert job is not None
            add_events(session, job, [message("never happened")], now=now(session))
            raise RuntimeError
    except RuntimeError:
        pass
    store.record(lease, 1, message("happened"))

    log = store.log(lease.job_id)
    assert [(event.seq, event.message) for event in log][2:] == [(3, "happened")]


def test_a_reader_gets_the_events_above_its_cursor_oldest_first(store: Store) -> None:
    lease = store.run()
    store.record(lease, 1, *(message(str(index)) for index in range(6)))

    with store.database.read() as session:
        assert [event.seq for event in events_after(session, lease.job_id, 2, 4)] == [3, 4, 5, 6]
        assert [event.seq for event in events_after(session, lease.job_id, 6, 100)] == [7, 8]
        assert events_after(session, lease.job_id, 8, 100) == []


def test_logs_of_two_jobs_are_counted_apart(store: Store) -> None:
    one, other = store.run(), store.run()
    store.record(one, 1, message("one"))
    store.record(other, 1, message("other"), message("another"))

    assert [event.seq for event in store.log(one.job_id)] == [1, 2, 3]
    assert [event.seq for event in store.log(other.job_id)] == [1, 2, 3, 4]
