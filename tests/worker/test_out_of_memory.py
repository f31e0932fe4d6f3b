"""Trainings in real processes whose memory runs out with whole batches and does for their parts."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from jobstore.leases import claim_next
from jobstore.lifecycle import JobStatus, StatusReason
from jobstore.storage import ArtifactFolder
from pals_core.training.events import Progress
from worker import cgroup, memory
from worker.child import TrainingProcess
from worker.clock import lease_time
from worker.memory import group_memory
from worker.ownership import Ownership
from worker.supervise import Supervisor

if TYPE_CHECKING:
    from tests.worker.conftest import Stack

PATIENCE = 90.0
# Of the most that whole batches take beside what a training has before it begins, another training of them takes at
# least 0.87, and one of their halves at most 0.66.
ENOUGH_FOR_HALVES = 0.77


class KilledBySystem(TrainingProcess):
    """A training process that has no memory left at its first step: the kernel counts and kills."""

    def __init__(self, counter: Path) -> None:
        super().__init__()
        self._counter = counter

    def hear(self, timeout: float) -> BaseModel | None:
        line = super().hear(timeout)
        if isinstance(line, Progress) and self.returncode is None:
            self._counter.write_text("oom 1\noom_kill 1\n")
            os.kill(self.pid, signal.SIGKILL)
        return line


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the control group of this process, which plays a worker, has of memory's events."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("0::/\n")
    events = tmp_path / "memory.events"
    events.write_text("oom 0\noom_kill 0\n")
    monkeypatch.setattr(cgroup, "PROC", tmp_path)
    monkeypatch.setattr(cgroup, "MOUNT", tmp_path)
    return events


def supervised(stack: Stack, job_id: str, child: TrainingProcess) -> None:
    asked = lease_time()
    with stack.database.write() as session:
        lease = claim_next(session, "wrk_test", ("cpu",), lease_seconds=60)
    assert lease is not None
    assert lease.job_id == job_id
    Supervisor(
        Ownership(lease, stack.database, asked=asked, seconds=60),
        child,
        artifacts=ArtifactFolder(stack.settings.resolved_artifacts_url),
        settings=stack.settings,
        scratch=stack.scratch,
        threads=1,
        draining=threading.Event(),
        under_way=lambda: None,
    ).run()


def assert_succeeded_in_parts(stack: Stack, job_id: str) -> None:
    job = stack.job(job_id)
    assert (job.status, job.error) == (JobStatus.SUCCEEDED, None)
    assert (job.attempt, job.losses, job.micro_batches, job.reproducible) == (2, 0, 2, False)


def test_a_training_that_the_system_kills_for_memory_succeeds_in_parts(stack: Stack, counter: Path) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False, training={"epochs": 150}, max_attempts=1)
    supervised(stack, job_id, KilledBySystem(counter))
    job = stack.job(job_id)
    assert (job.status, job.status_reason) == (JobStatus.QUEUED, StatusReason.OUT_OF_MEMORY)
    assert (job.losses, job.micro_batches) == (0, 2)
    said = stack.events(job_id)[-1].message
    assert said.startswith("the system's out-of-memory killer ended the training")
    assert "its batches are now computed in two parts; queued again" in said

    supervised(stack, job_id, TrainingProcess())
    assert_succeeded_in_parts(stack, job_id)


def test_a_training_killed_while_the_count_stays_as_it_was_is_lost(stack: Stack, counter: Path) -> None:
    counter.write_text("oom 1\noom_kill 1\n")
    job_id = stack.add_job(stack.add_dataset(), ring=False, training={"epochs": 150}, max_attempts=1)
    supervised(stack, job_id, KilledBySystem(counter))
    job = stack.job(job_id)
    assert (job.status, job.status_reason) == (JobStatus.FAILED, StatusReason.WORKER_LOST)
    assert (job.losses, job.micro_batches) == (1, 1)


def test_a_training_whose_limit_is_too_low_for_whole_batches_succeeds_in_parts(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def look(group: int) -> int:
        seen.append(group_memory(group))
        return seen[-1]

    def add_job(limit: int) -> str:
        # So narrow a network is trained in single precision everywhere.
        model = {"name": "transformer", "d_model": 16, "d_ff": 256, "heads": 2, "encoder_layers": 2}
        # What freed memory leaves in pieces adds to it step by step; after some it takes no more.
        training = {"epochs": 8, "batch_size": 640}
        return stack.add_job(
            dataset_id, model=model, training=training, input_len=96, ring=False, max_memory_bytes=limit
        )

    monkeypatch.setattr(memory, "group_memory", look)
    # How threads take turns makes a difference to the pieces.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    dataset_id = stack.add_dataset(steps=1400)
    child = TrainingProcess()
    assert child.ready.wait(PATIENCE)
    before = group_memory(child.pid)
    free = add_job(2**50)
    supervised(stack, free, child)
    assert (stack.job(free).status, stack.job(free).micro_batches) == (JobStatus.SUCCEEDED, 1)

    limit = round(before + ENOUGH_FOR_HALVES * (max(seen) - before))
    limited = add_job(limit)
    supervised(stack, limited, TrainingProcess())
    assert (stack.job(limited).status, stack.job(limited).status_reason) == (
        JobStatus.QUEUED,
        StatusReason.OUT_OF_MEMORY,
    )
    said = stack.events(limited)[-1].message
    assert f"of memory and may take {limit / memory.MIB:.0f};" in said
    assert "its batches are now computed in two parts; queued again" in said

    supervised(stack, limited, TrainingProcess())
    assert_succeeded_in_parts(stack, limited)
