from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import update

from jobstore.fleet import Occupation, crews
from jobstore.leases import release
from jobstore.lifecycle import StatusReason
from jobstore.tables import Worker
from jobstore.workers import DeviceClass, Slot, WorkerIdentity, announce

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store

SLOTS = tuple(Slot(f"cpu-{number}", (DeviceClass.CPU, DeviceClass.AUTO), 2) for number in range(3))


def test_each_slot_of_a_living_worker_says_what_it_is_doing(store: Store) -> None:
    worker, other = WorkerIdentity(SLOTS, {}), WorkerIdentity(SLOTS[:1], {})
    with store.database.write() as session:
        announce(session, worker)
        announce(session, other)
    dataset = store.dataset()
    for _ in range(2):
        store.queue(dataset=dataset)
    begins = store.claim(worker.id, slot="cpu-2")
    trains = store.claim(worker.id, slot="cpu-0")
    assert begins is not None
    assert trains is not None
    store.record(trains, 1, progress={"step": 3, "total_steps": 9, "estimated_remaining_seconds": 1.5})

    with store.database.read() as session:
        found = {crew.worker.id: [*crew.slots] for crew in crews(session)}
    assert found == {
        worker.id: [
            Occupation(SLOTS[0], trains.job_id, 3, 9, 1.5),
            Occupation(SLOTS[1]),
            Occupation(SLOTS[2], begins.job_id),
        ],
        other.id: [Occupation(SLOTS[0])],
    }
    assert [occupied.free for occupied in found[worker.id]] == [False, True, False]


def test_a_slot_is_free_again_when_its_job_is_given_back(store: Store) -> None:
    worker = WorkerIdentity(SLOTS[:1], {})
    with store.database.write() as session:
        announce(session, worker)
    lease = store.claim(worker.id, slot="cpu-0") if store.queue() else None
    assert lease is not None
    assert store.job(lease.job_id).worker_slot == "cpu-0"
    store.cancel(lease.job_id)
    with store.database.read() as session:
        assert [slot.free for crew in crews(session) for slot in crew.slots] == [False]

    with store.database.write() as session:
        release(session, lease, why="drained", reason=StatusReason.WORKER_DRAINING, runtime_seconds=1.0)
    with store.database.read() as session:
        assert [slot.free for crew in crews(session) for slot in crew.slots] == [True]
    assert store.job(lease.job_id).worker_slot is None


SAID = {"name": "cpu-0", "device_classes": ["cpu"], "threads": 2, "gpu": None}


@pytest.mark.parametrize(
    "slots",
    [
        [SAID, {**SAID, "device_classes": ["npu"]}],
        [{"name": "cpu-0", "device_classes": ["cpu"], "gpu": None}],
        [{**SAID, "name": ["cpu", 0]}],
        ["cpu-0"],
        {"cpu-0": SAID},
    ],
)
def test_a_worker_that_says_what_cannot_be_understood_is_passed_over(
    store: Store, slots: Any, caplog: pytest.LogCaptureFixture
) -> None:
    worker, newer = WorkerIdentity(SLOTS, {}), WorkerIdentity(SLOTS, {}, hostname="newer")
    with store.database.write() as session:
        announce(session, worker)
        announce(session, newer)
        session.execute(update(Worker).where(Worker.id == newer.id).values(slots=slots))

    for _ in range(2):
        with store.database.read() as session:
            assert [crew.worker.id for crew in crews(session)] == [worker.id]
    [warning] = [record.getMessage() for record in caplog.records if record.name == "jobstore.fleet"]
    assert f"worker {newer.id} on newer is passed over" in warning


def test_what_a_newer_worker_says_besides_is_left_out(store: Store) -> None:
    newer = WorkerIdentity(SLOTS[:1], {})
    with store.database.write() as session:
        announce(session, newer)
        session.execute(update(Worker).values(slots=[{**SAID, "device_classes": ["cpu", "auto"], "numa_node": 1}]))

    with store.database.read() as session:
        [crew] = crews(session)
    assert [occupied.slot for occupied in crew.slots] == [*SLOTS[:1]]
