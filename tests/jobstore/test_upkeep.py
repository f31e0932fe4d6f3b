from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, update

from jobstore.artifacts import mark_deleting
from jobstore.database import now
from jobstore.leases import finish
from jobstore.lifecycle import JobStatus
from jobstore.metrics import Point
from jobstore.tables import Artifact, Job, Leader, Metric, State, Worker
from jobstore.upkeep import Upkeep, classes_to_ring, lead
from jobstore.wakeups import Bell
from jobstore.workers import DeviceClass, Slot, WorkerIdentity, announce

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store


class CountingBell(Bell):
    """A bell that remembers whom it rang."""

    def __init__(self) -> None:
        self.rung: list[DeviceClass] = []
        self.answers = True

    def ring(self, device_class: DeviceClass) -> bool:
        self.rung.append(device_class)
        return self.answers


@pytest.fixture
def bell() -> CountingBell:
    return CountingBell()


@pytest.fixture
def upkeep(store: Store, bell: CountingBell) -> Iterator[Upkeep]:
    yield Upkeep(store.database, store.artifacts, bell, store.settings)


def leads(store: Store, holder: str, *, seconds: float = 60) -> bool:
    with store.database.write() as session:
        return lead(session, holder, seconds=seconds)


def hire(store: Store, *devices: DeviceClass, slots: int = 1) -> WorkerIdentity:
    worker = WorkerIdentity(tuple(Slot(f"cpu-{number}", devices, 1) for number in range(slots)), {})
    with store.database.write() as session:
        announce(session, worker)
    return worker


def to_ring(store: Store) -> set[DeviceClass]:
    with store.database.read() as session:
        return {*classes_to_ring(session)}


def rings(store: Store) -> Counter[DeviceClass]:
    with store.database.read() as session:
        return Counter(classes_to_ring(session))


def end_lease(store: Store, job_id: str) -> None:
    with store.database.write() as session:
        ended = now(session) - timedelta(seconds=store.settings.lease_grace_seconds + 1)
        session.execute(update(Job).where(Job.id == job_id).values(lease_expires_at=ended))


# --- one leader -----------------------------------------------------------------------------------


def test_one_of_two_leads_until_its_time_is_over(store: Store) -> None:
    assert leads(store, "one")
    assert not leads(store, "two")
    assert leads(store, "one", seconds=-1)
    assert leads(store, "two")
    assert not leads(store, "one")


def test_of_many_that_start_together_one_leads(store: Store) -> None:
    start = threading.Barrier(8)
    results: list[bool] = []

    def run(holder: str) -> None:
        start.wait()
        results.append(leads(store, holder))

    threads = [threading.Thread(target=run, args=(f"holder {index}",)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(results) == [False] * 7 + [True]


def test_a_process_that_does_not_lead_leaves_everything_alone(store: Store, upkeep: Upkeep) -> None:
    lease = store.run()
    end_lease(store, lease.job_id)
    assert leads(store, "another process")

    assert upkeep.once() is False
    assert store.job(lease.job_id).status == "running"


# --- whom to wake ---------------------------------------------------------------------------------


def test_workers_are_woken_for_what_waits_and_they_can_take(store: Store) -> None:
    dataset = store.dataset()
    assert to_ring(store) == set()

    store.queue(dataset=dataset, device="cpu")
    store.queue(dataset=dataset, device="cuda")
    assert to_ring(store) == set()

    hire(store, DeviceClass.CPU, DeviceClass.AUTO)
    assert to_ring(store) == {DeviceClass.CPU}

    store.queue(dataset=dataset, device="auto")
    assert to_ring(store) == {DeviceClass.CPU, DeviceClass.AUTO}

    hire(store, DeviceClass.CUDA, DeviceClass.AUTO)
    assert to_ring(store) == {DeviceClass.CPU, DeviceClass.AUTO, DeviceClass.CUDA}


def test_a_worker_without_a_free_slot_is_not_woken(store: Store) -> None:
    worker = hire(store, DeviceClass.CPU, slots=2)
    dataset = store.dataset()
    for slot, expected in (("cpu-0", {DeviceClass.CPU}), ("cpu-1", {DeviceClass.CPU}), ("", set[DeviceClass]())):
        store.queue(dataset=dataset)
        store.queue(dataset=dataset)
        assert to_ring(store) == expected
        store.claim(worker.id, slot=slot)


def test_nobody_is_woken_for_jobs_that_the_free_slots_do_not_take(store: Store) -> None:
    slots = (Slot("cuda-0", (DeviceClass.CUDA, DeviceClass.AUTO), 1, gpu="0"), Slot("cpu-0", (DeviceClass.CPU,), 1))
    worker = WorkerIdentity(slots, {})
    with store.database.write() as session:
        announce(session, worker)
    dataset = store.dataset()
    for device in (DeviceClass.CPU, DeviceClass.CPU, DeviceClass.AUTO):
        store.queue(dataset=dataset, device=device)
    assert to_ring(store) == {DeviceClass.CPU, DeviceClass.AUTO}
    store.claim(worker.id, slots[1].device_classes, slot="cpu-0")
    assert to_ring(store) == {DeviceClass.AUTO}
    store.claim(worker.id, slots[0].device_classes, slot="cuda-0")
    assert to_ring(store) == set()


def test_nobody_is_woken_for_a_job_that_is_put_off(store: Store) -> None:
    hire(store, DeviceClass.CPU)
    store.queue()
    with store.database.write() as session:
        session.execute(update(Job).values(not_before=now(session) + timedelta(minutes=1)))

    assert to_ring(store) == set()


def test_a_silent_worker_is_not_woken(store: Store) -> None:
    hire(store, DeviceClass.CPU)
    store.queue()
    with store.database.write() as session:
        session.execute(update(Worker).values(seen_at=now(session) - timedelta(minutes=1)))

    assert to_ring(store) == set()


@pytest.mark.parametrize(("jobs", "expected"), [(1, 1), (3, 3), (5, 4)])
def test_as_many_are_woken_as_there_are_jobs_and_free_slots(store: Store, jobs: int, expected: int) -> None:
    busy = hire(store, DeviceClass.CPU, DeviceClass.AUTO, slots=3)
    hire(store, DeviceClass.CPU, DeviceClass.AUTO, slots=2)
    dataset = store.dataset()
    store.queue(dataset=dataset)
    assert store.claim(busy.id, slot="cpu-1") is not None
    for _ in range(jobs):
        store.queue(dataset=dataset)
    store.queue(dataset=dataset, device="auto")

    assert rings(store) == {DeviceClass.CPU: expected, DeviceClass.AUTO: 1}


# --- a pass ---------------------------------------------------------------------------------------


def test_a_pass_takes_jobs_from_dead_workers_and_wakes_living_ones(
    store: Store, upkeep: Upkeep, bell: CountingBell
) -> None:
    lease = store.run()
    hire(store, DeviceClass.CPU)
    assert upkeep.once() is True
    assert (store.job(lease.job_id).status, bell.rung) == ("running", [])

    end_lease(store, lease.job_id)
    assert upkeep.once() is True
    assert (store.job(lease.job_id).status, bell.rung) == ("queued", [DeviceClass.CPU])


def test_all_jobs_of_a_dead_worker_are_taken_up_at_once(store: Store, upkeep: Upkeep, bell: CountingBell) -> None:
    dataset = store.dataset()
    leases = [store.run(dataset=dataset) for _ in range(4)]
    hire(store, DeviceClass.CPU, slots=8)
    for lease in leases:
        end_lease(store, lease.job_id)
    upkeep.once()

    assert {store.job(lease.job_id).status for lease in leases} == {"queued"}
    assert bell.rung == [DeviceClass.CPU] * 4


def test_a_broker_that_is_away_is_asked_once_in_a_pass(store: Store, upkeep: Upkeep, bell: CountingBell) -> None:
    bell.answers = False
    dataset = store.dataset()
    for _ in range(3):
        store.queue(dataset=dataset)
    hire(store, DeviceClass.CPU, slots=3)

    assert upkeep.once() is True
    assert bell.rung == [DeviceClass.CPU]


def test_a_worker_of_a_newer_version_keeps_nothing_from_being_done(
    store: Store, upkeep: Upkeep, bell: CountingBell
) -> None:
    newer = hire(store, DeviceClass.CPU)
    with store.database.write() as session:
        session.execute(update(Worker).where(Worker.id == newer.id).values(slots=[{"devices": ["npu"]}]))
    hire(store, DeviceClass.CPU)
    lease = store.run()
    end_lease(store, lease.job_id)

    assert upkeep.once() is True
    assert (store.job(lease.job_id).status, bell.rung) == ("queued", [DeviceClass.CPU])


@pytest.mark.parametrize("step", ["classes_to_ring", "fail_overdue", "forget_dead", "clear_expired", "sweepable"])
def test_a_lost_job_is_queued_whatever_else_fails(
    store: Store, upkeep: Upkeep, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("threads")

    monkeypatch.setattr(f"jobstore.upkeep.{step}", fail)
    lease = store.run()
    end_lease(store, lease.job_id)

    with pytest.raises(KeyError):
        upkeep.once()
    assert store.job(lease.job_id).status == "queued"


def test_a_pass_fails_jobs_that_waited_too_long(store: Store, upkeep: Upkeep) -> None:
    job_id = store.queue(max_pending_seconds=5.0)
    with store.database.write() as session:
        session.execute(update(Job).values(queued_at=now(session) - timedelta(seconds=10)))
    upkeep.once()

    assert store.job(job_id).status == "failed"


def test_a_pass_removes_artifacts_that_were_given_up(store: Store, upkeep: Upkeep) -> None:
    artifact_id = store.artifact()
    with store.database.write() as session:
        key = session.get_one(Artifact, artifact_id).key
    with store.artifacts.writer(key) as writer:
        blob = writer.commit()
    store.publish(artifact_id, blob)
    upkeep.once()
    assert store.artifacts.path(key).exists()

    with store.database.write() as session:
        mark_deleting(session, artifact_id)
    upkeep.once()
    assert not store.artifacts.path(key).exists()
    assert store.artifact_status(artifact_id) is None


def test_a_file_that_cannot_be_removed_holds_up_nothing_else(store: Store, upkeep: Upkeep, bell: CountingBell) -> None:
    stuck, other = store.artifact(), store.artifact()
    with store.database.write() as session:
        for artifact_id in (stuck, other):
            mark_deleting(session, artifact_id)
        # A folder in the file's place: unlink fails, for root too.
        store.artifacts.path(session.get_one(Artifact, stuck).key).mkdir(parents=True)
    hire(store, DeviceClass.CPU)
    store.queue()

    assert upkeep.once() is True
    assert (store.artifact_status(stuck), store.artifact_status(other)) == ("deleting", None)
    assert bell.rung == [DeviceClass.CPU]


@pytest.mark.parametrize(("failure", "traceback"), [(OSError("the disk is away"), False), (KeyError("threads"), True)])
def test_the_thread_outlives_a_pass_that_fails(
    store: Store,
    bell: CountingBell,
    failure: Exception,
    traceback: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lease = store.run()
    end_lease(store, lease.job_id)
    hire(store, DeviceClass.CPU)
    rung = threading.Event()
    failures = iter([failure])

    def ring(device_class: DeviceClass) -> bool:
        for failure in failures:
            raise failure
        rung.set()
        return True

    monkeypatch.setattr(bell, "ring", ring)
    settings = store.settings.model_copy(update={"upkeep_seconds": 0.01})
    upkeep = Upkeep(store.database, store.artifacts, bell, settings)
    upkeep.start()
    assert rung.wait(30)
    upkeep.stop()

    assert store.job(lease.job_id).status == "queued"
    with store.database.read() as session:
        assert session.get(Leader, "upkeep") is not None
    [logged] = [record for record in caplog.records if "upkeep pass failed" in record.getMessage()]
    assert (logged.exc_info is not None) == traceback


def test_a_pass_deletes_what_is_past_its_retention(store: Store, bell: CountingBell) -> None:
    lease = store.run()
    store.record(lease, 1, points=[Point("train_loss", 1, 0.5)])
    with store.database.write() as session:
        finish(session, lease, JobStatus.FAILED, message="failed", runtime_seconds=1.0)
        session.execute(update(Job).values(finished_at=now(session) - timedelta(days=2)))
    settings = store.settings.model_copy(update={"metric_retention_days": 1.0})
    Upkeep(store.database, store.artifacts, bell, settings).once()

    with store.database.read() as session:
        assert session.scalars(select(Metric)).all() == []


def test_a_pass_gives_up_states_that_nobody_retried_from(store: Store, upkeep: Upkeep) -> None:
    lease = store.run()
    store.save_state(lease, 1, 3)
    with store.database.write() as session:
        finish(session, lease, JobStatus.FAILED, message="failed", runtime_seconds=1.0)
    upkeep.once()
    assert store.steps_of_states(lease.job_id) == [3]
    with store.database.write() as session:
        long_ago = now(session) - timedelta(hours=store.settings.state_retention_hours + 1)
        session.execute(update(Job).values(finished_at=long_ago))
        session.execute(update(State).values(created_at=long_ago))
    upkeep.once()
    assert store.steps_of_states(lease.job_id) == []
