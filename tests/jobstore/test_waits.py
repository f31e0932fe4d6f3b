from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobstore.leases import finish
from jobstore.lifecycle import JobStatus
from jobstore.waits import Pace, paces
from jobstore.workers import DeviceClass, Slot, WorkerIdentity, announce

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store


@pytest.mark.parametrize(
    ("slots", "remaining", "seconds_per_job", "jobs_ahead", "wait"),
    [
        (0, (), 10.0, 0, None),
        (1, (), None, 0, 0.0),
        (1, (), None, 1, None),
        (1, (), 10.0, 1, 10.0),
        (1, (4.0,), 10.0, 0, 4.0),
        (1, (4.0,), 10.0, 3, 34.0),
        (1, (None,), 10.0, 0, 10.0),
        (2, (4.0,), 10.0, 0, 0.0),
        (2, (4.0,), 10.0, 1, 4.0),
        (2, (4.0,), 10.0, 2, 10.0),
        (3, (7.0, 1.0, 5.0), 10.0, 1, 5.0),
        (3, (7.0, 1.0, 5.0), 10.0, 3, 11.0),
    ],
)
def test_a_job_waits_for_the_slot_that_is_free_when_those_ahead_have_theirs(
    slots: int, remaining: tuple[float | None, ...], seconds_per_job: float | None, jobs_ahead: int, wait: float | None
) -> None:
    assert Pace(slots, remaining, seconds_per_job).wait(jobs_ahead) == wait


def test_the_pace_is_that_of_the_slots_for_a_device_and_of_the_jobs_that_succeeded(store: Store) -> None:
    dataset = store.dataset()
    cpu = [Slot(f"cpu-{number}", (DeviceClass.CPU,), 1) for number in range(3)]
    worker = WorkerIdentity((Slot("cuda-0", (DeviceClass.CUDA, DeviceClass.AUTO), 1, gpu="0"), *cpu), {})
    with store.database.write() as session:
        announce(session, worker)
    for seconds, to in ((10.0, JobStatus.SUCCEEDED), (20.0, JobStatus.SUCCEEDED), (1000.0, JobStatus.FAILED)):
        lease = store.run(dataset=dataset)
        with store.database.write() as session:
            finish(session, lease, to, message="over", runtime_seconds=seconds)
    for slot, left in (("cpu-0", 4.5), ("cpu-1", None), ("cuda-0", 9.0)):
        store.queue(dataset=dataset)
        lease = store.claim(worker.id, slot=slot)
        assert lease is not None
        if left is not None:
            store.record(lease, 1, progress={"estimated_remaining_seconds": left})

    with store.database.read() as session:
        found = paces(session, [*DeviceClass])
    assert found == {
        DeviceClass.CPU: Pace(3, (4.5, None), 15.0),
        DeviceClass.AUTO: Pace(1, (9.0,), 15.0),
        DeviceClass.CUDA: Pace(1, (9.0,), 15.0),
    }
