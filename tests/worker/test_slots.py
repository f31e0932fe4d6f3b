from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
from sqlalchemy import update

from jobstore.lifecycle import JobStatus, StatusReason
from jobstore.tables import Job
from jobstore.workers import DeviceClass, Slot
from pals_core.heap import pages_of
from pals_core.openmp import waiting_of
from tests.eventually import eventually
from worker import run
from worker.child import CannotStart, Standby, TrainingProcess
from worker.protocol import Gpu, Ready
from worker.run import TrainingWorker
from worker.slots import cpu_count, gpu_names, memory_bytes, plan_slots, processor, visible_gpus

if TYPE_CHECKING:
    from tests.worker.conftest import Stack

CPU, CUDA, AUTO = DeviceClass.CPU, DeviceClass.CUDA, DeviceClass.AUTO


@pytest.mark.parametrize(
    ("cpus", "cpu_slots", "gpus", "slots"),
    [
        (8, 1, [], [Slot("cpu-0", (CPU, AUTO), 8)]),
        (8, 3, [], [Slot("cpu-0", (CPU, AUTO), 3), Slot("cpu-1", (CPU, AUTO), 3), Slot("cpu-2", (CPU, AUTO), 2)]),
        (1, 2, [], [Slot("cpu-0", (CPU, AUTO), 1), Slot("cpu-1", (CPU, AUTO), 1)]),
        (
            16,
            1,
            ["0", "GPU-5"],
            [Slot("cuda-0", (CUDA, AUTO), 6, "0"), Slot("cuda-1", (CUDA, AUTO), 5, "GPU-5"), Slot("cpu-0", (CPU,), 5)],
        ),
    ],
)
def test_a_host_has_a_slot_for_each_gpu_and_shares_its_threads(
    cpus: int, cpu_slots: int, gpus: list[str], slots: list[Slot]
) -> None:
    assert [*plan_slots(cpus=cpus, cpu_slots=cpu_slots, gpus=gpus)] == slots


def test_gpus_are_named_as_the_worker_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_names(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-7")
    assert gpu_names(2) == ["3", "GPU-7"]
    assert gpu_names(1) == ["3"]


def test_a_slots_trainings_see_its_gpu_alone() -> None:
    on_gpu, on_cpu = Slot("cuda-1", (CUDA,), 1, "GPU-7"), Slot("cpu-0", (CPU,), 1)
    assert visible_gpus(on_gpu, host_has_gpus=True) == "GPU-7"
    assert visible_gpus(on_cpu, host_has_gpus=True) == ""
    assert visible_gpus(on_cpu, host_has_gpus=False) is None


def test_each_slots_child_stands_by_with_its_own_gpus_and_is_replaced_by_one_alike() -> None:
    scout = TrainingProcess()
    standby = Standby({"cuda-0": "GPU-7", "cpu-0": ""}, scout)
    children = []
    try:
        assert scout.returncode is not None
        for slot, visible in (("cuda-0", "GPU-7"), ("cuda-0", "GPU-7"), ("cpu-0", "")):
            child = standby.take(slot)
            children.append(child)
            standby.refill(slot)
            # For a moment, the system says of a process that has only just started that it has none.
            environment = eventually(psutil.Process(child.pid).environ, f"{child.pid} has an environment", 10)
            assert environment["CUDA_VISIBLE_DEVICES"] == visible
            assert (waiting_of(os.environ) | pages_of(os.environ)).items() <= environment.items()
    finally:
        standby.stop()
        for child in children:
            child.kill()


def test_the_scout_waits_for_a_slot_where_it_fits() -> None:
    scout = TrainingProcess()
    standby = Standby({"cpu-0": None}, scout)
    try:
        assert standby.take("cpu-0") is scout
    finally:
        standby.stop()
        scout.kill()


def test_the_next_child_starts_when_that_is_told_and_only_one_stands_by() -> None:
    scout = TrainingProcess()
    standby = Standby({"cpu-0": None}, scout)
    children = []
    try:
        before = {*psutil.Process().children()}
        children.append(standby.take("cpu-0"))
        assert {*psutil.Process().children()} == before
        standby.refill("cpu-0")
        standby.refill("cpu-0")
        [waiting] = {*psutil.Process().children()} - before
        children.append(standby.take("cpu-0"))
        assert children[-1].pid == waiting.pid
        children.append(standby.take("cpu-0"))
        assert children[-1].pid != waiting.pid
    finally:
        standby.stop()
        for child in children:
            child.kill()


def test_a_child_that_cannot_be_started_is_missing_until_one_can(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scout = TrainingProcess()
    standby = Standby({"cpu-0": None}, scout)
    try:
        assert standby.refill("cpu-0")
        os.kill(scout.pid, signal.SIGKILL)
        scout._process.wait(30)
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", "/nowhere/python")
            assert not standby.refill("cpu-0")
            assert "nothing stands by for slot cpu-0" in caplog.text
            with pytest.raises(CannotStart):
                standby.take("cpu-0")
        assert standby.refill("cpu-0")
    finally:
        standby.stop()


def test_a_slot_whose_gpu_is_gone_takes_no_more_jobs(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-that-is-gone")
    gpu = Gpu(name="gone", memory_bytes=0)
    monkeypatch.setattr(run, "found_by", lambda _scout: Ready(torch="2", cuda_devices=(gpu,)))
    job_id = stack.add_job(stack.add_dataset(), training={"device": "cuda"}, ring=False)
    with stack.database.write() as session:
        session.execute(update(Job).values(device_class=CUDA))
    worker = TrainingWorker(stack.settings, stack.database)
    worker.start()
    try:
        worker.work()
    finally:
        worker.stop()

    job = stack.job(job_id)
    assert (job.status, job.status_reason) == (JobStatus.QUEUED, StatusReason.WORKER_LOST)
    assert (job.attempt, job.losses) == (1, 1)
    assert stack.events(job_id)[-1].message.startswith("the GPU of its slot is gone: device cuda was asked for")


def test_a_host_has_a_processor_and_memory() -> None:
    assert processor()
    assert 1 <= cpu_count() <= (psutil.cpu_count() or 1)
    assert 0 < memory_bytes() <= psutil.virtual_memory().total
