"""A real worker process on a real store: what becomes of jobs when all goes well and when it does not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from sqlalchemy import update

from jobstore.checkpoints import checkpoints_of
from jobstore.database import now
from jobstore.events import EventType
from jobstore.fleet import crews
from jobstore.lifecycle import JobStatus, StatusReason
from jobstore.metrics import read_series
from jobstore.storage import ArtifactFolder
from jobstore.storage.folder import MARK
from jobstore.tables import Artifact, Job
from jobstore.upkeep import Upkeep
from jobstore.wakeups import Bell
from pals_core.checkpoint.container import read_header
from pals_core.checkpoint.header import NetworkCost
from pals_core.evaluation.document import Evaluation
from tests.eventually import eventually
from worker.slots import cpu_count

if TYPE_CHECKING:
    from tests.worker.conftest import Stack

LONG = {"epochs": 10_000, "patience": 10_000}
PATIENCE = 90.0


def moves(stack: Stack, job_id: str) -> list[tuple[str | None, str, str | None]]:
    """(from, to, reason) of every state event."""
    return [
        (event.data["from"], event.data["status"], event.data["reason"])
        for event in stack.events(job_id)
        if event.type == EventType.STATE
    ]


def wait_until_gone(process: psutil.Process) -> None:
    psutil.wait_procs([process], timeout=20)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_queued_job_is_trained_to_a_sparse_checkpoint(stack: Stack) -> None:
    job_id = stack.add_job(stack.add_dataset())
    stack.start_worker()
    job = stack.wait_for_status(job_id, JobStatus.SUCCEEDED)
    assert job.result is not None
    assert job.result["sparsity"] > 0
    assert job.attempt == 1
    assert job.lease_token is None
    assert job.progress is not None
    assert job.progress["epochs"] == 2
    assert moves(stack, job_id) == [
        (None, "queued", None),
        ("queued", "running", None),
        ("running", "succeeded", None),
    ]
    events = stack.events(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert {EventType.MASK_UPDATE, EventType.EPOCH, EventType.CHECKPOINT, EventType.PROGRESS} <= {
        EventType(event.type) for event in events
    }
    artifacts = ArtifactFolder(stack.settings.resolved_artifacts_url)
    with stack.database.read() as session:
        checkpoints = checkpoints_of(session, job_id)
        best = next(checkpoint for checkpoint in checkpoints if checkpoint.is_best)
        artifact = session.get_one(Artifact, best.artifact_id)
        assert artifact.status == "published"
        assert artifacts.path(artifact.key).stat().st_size == artifact.size == job.result["checkpoint_bytes"]
        assert best.metrics == job.result["metrics"]
        assert best.evaluation_id is not None
        evaluation = Evaluation.model_validate_json(artifacts.read(session.get_one(Artifact, best.evaluation_id).key))
        assert evaluation.metrics.model_dump() == best.metrics
        cost = NetworkCost.model_validate(best.cost)
        assert read_header(artifacts.path(artifact.key)).layers == cost.layers
        assert [*cost.layers] == ["remainder.weight", "trend.weight"]
        assert cost.flops_sparse == job.result["flops_sparse"] < job.result["flops_dense"] == cost.flops_dense
        series = {one.name: one for one in read_series(session, job_id, names=None, max_points=10_000)}
    assert series["train_loss"].steps == list(range(1, job.progress["step"] + 1))
    assert {"sparsity", "decision_loss", "validation_loss"} <= set(series)
    assert stack.in_scratch() == []


def test_a_cancelled_job_stops_and_its_training_process_is_gone(stack: Stack) -> None:
    worker = stack.start_worker()
    job_id = stack.add_job(stack.add_dataset(), training=LONG)
    stack.wait_for_steps(job_id)
    child = worker.training_child()
    stack.cancel(job_id)
    job = stack.wait_for_status(job_id, JobStatus.CANCELLED)
    assert job.status_reason == StatusReason.CANCELLED
    assert [move[1] for move in moves(stack, job_id)] == ["queued", "running", "cancelling", "cancelled"]
    wait_until_gone(child)


def test_the_training_process_has_no_credentials(stack: Stack) -> None:
    worker = stack.start_worker(PALS_SECRET="hunter2", AWS_SECRET_ACCESS_KEY="hunter2")
    job_id = stack.add_job(stack.add_dataset(), training=LONG)
    stack.wait_for_steps(job_id)
    environment = worker.training_child().environ()
    assert not [name for name in environment if name.startswith(("PALS_", "AWS_"))]
    assert "hunter2" not in str(environment)


def test_a_killed_training_process_gives_a_job_that_runs_again(stack: Stack) -> None:
    worker = stack.start_worker()
    job_id = stack.add_job(stack.add_dataset(), training=LONG)
    stack.wait_for_steps(job_id)
    worker.training_child().kill()
    stack.wait_for_steps(job_id, attempt=2)
    assert ("running", "queued", StatusReason.WORKER_LOST) in moves(stack, job_id)
    lost = next(event for event in stack.events(job_id) if event.data.get("reason") == StatusReason.WORKER_LOST)
    assert "SIGKILL" in lost.message
    stack.cancel(job_id)
    stack.wait_for_status(job_id, JobStatus.CANCELLED)


def test_a_job_whose_process_always_dies_fails_with_the_reason(stack: Stack) -> None:
    worker = stack.start_worker()
    job_id = stack.add_job(stack.add_dataset(), training=LONG, max_attempts=1)
    stack.wait_for_steps(job_id)
    worker.training_child().kill()
    job = stack.wait_for_status(job_id, JobStatus.FAILED)
    assert job.status_reason == StatusReason.WORKER_LOST
    assert job.error is not None
    assert "max_attempts is 1" in job.error["message"]


def test_a_killed_worker_takes_its_child_with_it_and_the_job_runs_again_elsewhere(stack: Stack) -> None:
    first = stack.start_worker()
    job_id = stack.add_job(stack.add_dataset(), training=LONG)
    stack.wait_for_steps(job_id)
    children = first.children()
    first.process.kill()
    for child in children:
        wait_until_gone(child)
    assert stack.job(job_id).status == JobStatus.RUNNING  # nobody knows yet
    stack.start_worker()
    stack.wait_for_steps(job_id, attempt=2)
    assert ("running", "queued", StatusReason.WORKER_LOST) in moves(stack, job_id)
    stack.cancel(job_id)
    stack.wait_for_status(job_id, JobStatus.CANCELLED)


def test_a_worker_frozen_past_its_lease_writes_nothing_when_it_wakes(stack: Stack) -> None:
    frozen = stack.start_worker()
    job_id = stack.add_job(stack.add_dataset(), training=LONG)
    stack.wait_for_steps(job_id)
    child = frozen.training_child()
    frozen.freeze(stack)
    wait_until_gone(child)  # its own clock stops it, before anybody may take the job
    stack.start_worker()
    stack.wait_for_steps(job_id, attempt=2)
    frozen.process.send_signal(signal.SIGCONT)
    before = stack.job(job_id)
    stack.cancel(job_id)
    stack.wait_for_status(job_id, JobStatus.CANCELLED)
    assert before.attempt == 2
    assert {event.attempt for event in stack.events(job_id) if event.type == EventType.PROGRESS} == {1, 2}
    attempts = [event.attempt for event in stack.events(job_id)]
    assert attempts == sorted(attempts)
    events = stack.events(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


def test_a_job_past_its_runtime_fails_as_timed_out(stack: Stack) -> None:
    stack.start_worker()
    job_id = stack.add_job(stack.add_dataset(), training=LONG, max_runtime_seconds=1.5)
    job = stack.wait_for_status(job_id, JobStatus.FAILED)
    assert job.status_reason == StatusReason.TIMEOUT
    assert job.error is not None
    assert job.error["code"] == "runtime_exceeded"


def test_a_job_nobody_takes_fails_after_its_pending_time(stack: Stack) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False, max_pending_seconds=0.01)
    stack.start_worker(PALS_UPKEEP_SECONDS="0.1")
    job = stack.wait_for_status(job_id, JobStatus.FAILED)
    assert job.error is not None
    assert job.error["code"] == "pending_timeout"


def test_a_diverging_training_is_the_users_error_and_says_so(stack: Stack) -> None:
    stack.start_worker()
    job = stack.wait_for_status(stack.add_job(stack.add_dataset(explodes=True)), JobStatus.FAILED)
    assert job.status_reason == StatusReason.USER_ERROR
    assert job.error is not None
    assert job.error["code"] == "diverged"


def test_a_crash_tells_the_tail_of_standard_error(stack: Stack) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False)
    with stack.database.write() as session:
        session.execute(update(Job).values(spec={"of": "another version"}))
    stack.start_worker()
    job = stack.wait_for_status(job_id, JobStatus.FAILED)
    assert job.status_reason == StatusReason.INTERNAL
    assert job.error is not None
    assert job.error["code"] == "training_crashed"
    assert "ValidationError" in job.error["message"]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that cannot be read is there on Linux only")
def test_a_dataset_that_cannot_be_read_is_waited_for(stack: Stack) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False, max_attempts=1)
    stored = ArtifactFolder(stack.settings.resolved_artifacts_url).path(stack.dataset_key)
    kept = stored.rename(stored.with_name("kept"))
    stored.symlink_to("/proc/self/mem")  # its first bytes are no memory of anybody's: a real EIO
    stack.start_worker()
    why = "the dataset cannot be read: Input/output error"
    eventually(lambda: why in stack.events(job_id)[-1].message, "the job is put off", PATIENCE)
    job = stack.job(job_id)
    assert (job.status, job.status_reason, job.losses) == (JobStatus.QUEUED, StatusReason.STORAGE_UNAVAILABLE, 0)

    stored.unlink()
    kept.rename(stored)
    stack.end_wait(job_id)
    assert stack.wait_for_status(job_id, JobStatus.SUCCEEDED).attempt == 2


def test_a_worker_whose_store_is_not_mounted_fails_no_job(stack: Stack, tmp_path: Path) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False, max_attempts=1)
    root = ArtifactFolder(stack.settings.resolved_artifacts_url).root
    away = root.rename(tmp_path / "away")
    root.mkdir()
    stack.start_worker()
    eventually(lambda: stack.events(job_id)[-1].data.get("reason") is not None, "the job is put off", PATIENCE)
    job = stack.job(job_id)
    assert (job.status, job.status_reason) == (JobStatus.QUEUED, StatusReason.STORAGE_UNAVAILABLE)
    assert "its folder is not mounted" in stack.events(job_id)[-1].message
    assert list(root.iterdir()) == []

    root.rmdir()
    away.rename(root)
    stack.end_wait(job_id)
    assert stack.wait_for_status(job_id, JobStatus.SUCCEEDED).attempt == 2


def test_a_dataset_whose_bytes_are_gone_fails_its_jobs_and_says_so(stack: Stack) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False)
    ArtifactFolder(stack.settings.resolved_artifacts_url).delete(stack.dataset_key)
    stack.start_worker()
    job = stack.wait_for_status(job_id, JobStatus.FAILED)
    assert job.status_reason == StatusReason.INTERNAL
    assert job.error is not None
    assert job.error["code"] == "dataset_missing"


def test_a_lost_wake_up_is_repeated_by_upkeep(stack: Stack) -> None:
    stack.start_worker()
    job_id = stack.add_job(stack.add_dataset(), ring=False)
    stack.wait_for_status(job_id, JobStatus.SUCCEEDED)


def test_all_jobs_of_a_killed_worker_go_on_after_one_pass_of_upkeep(make_stack: Any) -> None:
    stack: Stack = make_stack(PALS_UPKEEP_SECONDS="3600")
    dataset_id = stack.add_dataset()
    killed = stack.start_worker(PALS_WORKER_SLOTS="3")
    jobs = [stack.add_job(dataset_id, training=LONG) for _ in range(3)]
    for job_id in jobs:
        stack.wait_for_steps(job_id)
    stack.start_worker(PALS_WORKER_SLOTS="3")
    killed.process.kill()
    killed.process.wait()
    with stack.database.write() as session:
        session.execute(update(Job).values(lease_expires_at=now(session) - timedelta(minutes=1)))

    with closing(Bell(stack.settings)) as bell:
        artifacts = ArtifactFolder(stack.settings.resolved_artifacts_url)
        assert Upkeep(stack.database, artifacts, bell, stack.settings).once()
    for job_id in jobs:
        stack.wait_for_steps(job_id, attempt=2)
    for job_id in jobs:
        stack.cancel(job_id)
        stack.wait_for_status(job_id, JobStatus.CANCELLED)


def test_two_workers_share_the_queue_and_no_job_runs_twice(stack: Stack) -> None:
    dataset_id = stack.add_dataset()
    jobs = [stack.add_job(dataset_id) for _ in range(6)]
    stack.start_worker()
    stack.start_worker()
    for job_id in jobs:
        assert stack.wait_for_status(job_id, JobStatus.SUCCEEDED).attempt == 1


def test_slots_train_at_once_and_say_what_they_are_doing(stack: Stack) -> None:
    worker = stack.start_worker(PALS_WORKER_SLOTS="2")
    dataset_id = stack.add_dataset()
    jobs = {stack.add_job(dataset_id, training=LONG) for _ in range(2)}
    for job_id in jobs:
        stack.wait_for_steps(job_id)

    with stack.database.read() as session:
        [crew] = crews(session)
    assert [occupied.slot.name for occupied in crew.slots] == ["cpu-0", "cpu-1"]
    assert {occupied.job_id for occupied in crew.slots} == jobs
    assert all(occupied.step for occupied in crew.slots)
    assert sum(occupied.slot.threads for occupied in crew.slots) == max(2, cpu_count())
    log = worker.log.read_text()
    for found in (crew.worker.details["processor"], "GiB of memory", "slot cpu-1 takes jobs of device cpu, auto"):
        assert found in log


def test_a_training_over_its_memory_limit_is_tried_in_parts_then_fails_and_harms_no_other(stack: Stack) -> None:
    stack.start_worker(PALS_WORKER_SLOTS="2", PALS_TRAINING_MEMORY_BYTES=str(2**40))
    dataset_id = stack.add_dataset()
    other = stack.add_job(dataset_id, training=LONG)
    stack.wait_for_steps(other)
    greedy = stack.add_job(dataset_id, training=LONG, max_memory_bytes=20 * 2**20)
    job = stack.wait_for_status(greedy, JobStatus.FAILED)

    assert (job.status_reason, job.attempt, job.micro_batches) == (StatusReason.OUT_OF_MEMORY, 2, 2)
    assert job.error is not None
    assert (job.error["code"], job.error["param"]) == ("out_of_memory", "/limits/max_memory_bytes")
    assert "of memory and may take 20;" in job.error["message"]
    assert ("running", "queued", StatusReason.OUT_OF_MEMORY) in moves(stack, greedy)
    assert (stack.job(other).status, stack.job(other).attempt) == (JobStatus.RUNNING, 1)
    stack.cancel(other)
    stack.wait_for_status(other, JobStatus.CANCELLED)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a tiny file system needs root and the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_puts_the_job_off_with_the_reason_and_leaves_no_torn_file(tiny_disk: Path, make_stack: Any) -> None:
    stack = make_stack(PALS_ARTIFACTS_URL=tiny_disk.as_uri())
    dataset_id = stack.add_dataset()
    large = {"name": "transformer", "d_model": 128, "d_ff": 256, "heads": 2}
    job_id = stack.add_job(dataset_id, model=large, max_attempts=1)
    stack.start_worker()
    eventually(lambda: stack.job(job_id).status_reason is not None, "the job is put off", PATIENCE)
    job = stack.job(job_id)
    assert (job.status, job.status_reason) == (JobStatus.QUEUED, StatusReason.STORAGE_UNAVAILABLE)
    assert "No space left on device" in stack.events(job_id)[-1].message
    files = {path.name for path in tiny_disk.rglob("*") if path.is_file()}
    assert files == {MARK, Path(stack.dataset_key).name}


def test_the_supervising_process_never_imports_torch() -> None:
    program = "import sys, worker.run; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
