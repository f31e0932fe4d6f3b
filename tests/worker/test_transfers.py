"""What a supervisor does while bytes move between a slow bucket and its host, the training being played."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from jobstore.checkpoints import checkpoints_of
from jobstore.control import pause
from jobstore.lifecycle import JobStatus, StatusReason
from jobstore.storage import ArtifactFolder, interface
from jobstore.storage.bucket import _ObjectReader, _ObjectWriter
from pals_core.training.events import CheckpointSaved, StateSaved
from tests.eventually import eventually
from tests.jobstore.storage.conftest import BYTES, InsideBucket
from tests.servers.s3 import S3Server
from tests.worker.first_words import STARTED
from tests.worker.test_supervise import Played, claimed, saved_state, supervised
from worker import supervise
from worker.protocol import Suspend, Suspended, Train

if TYPE_CHECKING:
    from tests.worker.conftest import Stack

FETCHED_AT_ONCE = 100
PIECES = 30  # of an upload
BEGUN = 15  # pieces of BYTES, after which a part of them is in the bucket
PATIENCE = 30.0


class SlowLine:
    """Lets pieces through one by one, and does something after one of them."""

    def __init__(self) -> None:
        self.passed = 0
        self.seconds = 0.05
        self.after: dict[int, Callable[[], object]] = {}

    def take(self) -> None:
        time.sleep(self.seconds)
        self.passed += 1
        if self.passed in self.after:
            self.after.pop(self.passed)()


@pytest.fixture
def bucket(s3_server: S3Server, tmp_path: Path) -> Iterator[InsideBucket]:
    inside = InsideBucket(s3_server, tmp_path / "looking")
    yield inside
    inside.store.close()


@pytest.fixture
def down(monkeypatch: pytest.MonkeyPatch) -> SlowLine:
    """The way from the bucket."""
    line, read = SlowLine(), _ObjectReader.read

    def slow_read(reader: _ObjectReader, size: int = -1) -> bytes:
        line.take()
        return read(reader, FETCHED_AT_ONCE)

    monkeypatch.setattr(_ObjectReader, "read", slow_read)
    return line


@pytest.fixture
def up(monkeypatch: pytest.MonkeyPatch) -> SlowLine:
    """The way to the bucket."""
    line, append = SlowLine(), _ObjectWriter._append

    def slow_append(writer: _ObjectWriter, data: bytes) -> None:
        append(writer, data)
        line.take()

    monkeypatch.setattr(_ObjectWriter, "_append", slow_append)
    monkeypatch.setattr(interface, "CHUNK", len(BYTES) // PIECES)
    return line


def add_job(stack: Stack, bucket: InsideBucket, **limits: Any) -> str:
    """A job whose dataset is in the bucket."""
    dataset_id = stack.add_dataset()
    bucket.store.put(stack.dataset_key, ArtifactFolder(stack.settings.resolved_artifacts_url).path(stack.dataset_key))
    return stack.add_job(dataset_id, ring=False, **limits)


def state_of(size: int, folder: Path, step: int) -> StateSaved:
    saved = saved_state(folder, step)
    Path(saved.path).write_bytes(BYTES[:size])
    return saved


def checkpoint_of(checkpoint: Path, folder: Path) -> CheckpointSaved:
    """A checkpoint with an evaluation as large as BYTES."""
    path = Path(shutil.copy(checkpoint, folder / "epoch-001.pals.safetensors"))
    evaluation = folder / "evaluation"
    evaluation.write_bytes(BYTES)
    return CheckpointSaved(
        step=5,
        epoch=1,
        path=str(path),
        is_best=True,
        is_last=True,
        sparsity=0.5,
        validation_loss=1.0,
        evaluation_path=str(evaluation),
    )


@pytest.mark.parametrize("fetched", ["dataset", "state"])
@pytest.mark.parametrize(
    ("asked", "limit", "status", "reason"),
    [
        ("cancel", None, JobStatus.CANCELLED, StatusReason.CANCELLED),
        ("pause", None, JobStatus.PAUSED, None),
        ("drain", None, JobStatus.QUEUED, StatusReason.WORKER_DRAINING),
        ("time", 3.0, JobStatus.FAILED, StatusReason.TIMEOUT),
    ],
)
def test_what_a_training_needs_is_not_waited_for_when_it_is_to_stop(
    stack: Stack,
    bucket: InsideBucket,
    down: SlowLine,
    tmp_path: Path,
    fetched: str,
    asked: str,
    limit: float | None,
    status: JobStatus,
    reason: StatusReason | None,
) -> None:
    down.seconds = 0.0
    job_id = add_job(stack, bucket, max_runtime_seconds=limit)
    if fetched == "state":
        lines = [STARTED, state_of(20_000, tmp_path, 3), Suspended()]
        supervised(stack, claimed(stack, job_id), Played(lines), draining=True, artifacts=bucket.store)
    copies = [*bucket.settings.scratch_dir.rglob("art_*")]
    drain = threading.Event()
    ask: dict[str, Callable[[], object]] = {
        "cancel": lambda: stack.cancel(job_id),
        "pause": lambda: stack.ask(pause, job_id),
        "drain": drain.set,
        "time": lambda: None,
    }
    down.passed, down.seconds, down.after = 0, 0.05, {3: ask[asked]}
    child = supervised(stack, claimed(stack, job_id), Played([]), draining=drain, artifacts=bucket.store)

    assert 3 <= down.passed < 100  # of some 120 of the dataset, or 200 of the state
    assert child.sent == []
    job = stack.job(job_id)
    assert (job.status, job.status_reason, job.losses) == (status, reason, 0)
    assert [state.step for state in stack.states(job_id)] == ([3] if fetched == "state" else [])
    assert stack.in_scratch() == []
    assert [*bucket.settings.scratch_dir.rglob("art_*")] == copies


def test_a_job_that_waits_for_anothers_fetch_is_cancelled_at_once(
    stack: Stack, bucket: InsideBucket, down: SlowLine
) -> None:
    first_id = add_job(stack, bucket)
    second_id = stack.add_job(stack.job(first_id).dataset_id, ring=False)
    first, second = claimed(stack, first_id), claimed(stack, second_id)
    down.seconds = 0.1
    child = Played([STARTED, Suspended()])
    fetching = threading.Thread(target=supervised, args=(stack, first, child), kwargs={"artifacts": bucket.store})
    fetching.start()
    eventually(lambda: down.passed, "the dataset is on its way", PATIENCE)
    stack.cancel(second_id)
    waiting = supervised(stack, second, Played([]), artifacts=bucket.store)
    assert (waiting.sent, stack.job(second_id).status) == ([], JobStatus.CANCELLED)
    assert child.sent == []

    down.seconds = 0.0
    fetching.join()
    assert [type(said) for said in child.sent] == [Train]
    assert stack.job(first_id).losses == 0


@pytest.mark.parametrize("kind", ["states", "evaluations"])
def test_a_cancelled_training_does_not_wait_until_it_is_stored(
    stack: Stack, bucket: InsideBucket, up: SlowLine, tmp_path: Path, best_checkpoint: Path, kind: str
) -> None:
    def cancel() -> None:
        assert [key.split("/")[1] for key in bucket.torn()] == [kind]
        stack.cancel(job_id)

    job_id = add_job(stack, bucket)
    saved = state_of(len(BYTES), tmp_path, 7) if kind == "states" else checkpoint_of(best_checkpoint, tmp_path)
    up.passed, up.seconds, up.after = 0, 0.1, {BEGUN: cancel}
    lines = [STARTED, saved, state_of(1000, tmp_path, 9)]
    supervised(stack, claimed(stack, job_id), Played(lines, lives_on=True), artifacts=bucket.store)

    assert BEGUN <= up.passed < PIECES
    job = stack.job(job_id)
    assert (job.status, job.status_reason) == (JobStatus.CANCELLED, StatusReason.CANCELLED)
    assert stack.states(job_id) == []
    with stack.database.read() as session:
        assert not checkpoints_of(session, job_id)
    # A checkpoint that was stored before its evaluation has a row that the sweep finds.
    stored = bucket.keys()
    kinds = {key.split("/")[1] for key in stored}
    assert (kinds, bucket.torn()) == ({"datasets"} if kind == "states" else {"datasets", "checkpoints"}, [])


@pytest.mark.parametrize(("asked", "status"), [("drain", JobStatus.QUEUED), ("pause", JobStatus.PAUSED)])
def test_a_state_on_its_way_is_stored_before_the_job_is_given_back(
    stack: Stack, bucket: InsideBucket, up: SlowLine, tmp_path: Path, asked: str, status: JobStatus
) -> None:
    drain = threading.Event()
    told_at: list[int] = []

    class Asked(Played):
        def send(self, said: BaseModel) -> None:
            super().send(said)
            if isinstance(said, Suspend):
                told_at.append(up.passed)

    job_id = add_job(stack, bucket)
    up.passed, up.after = 0, {2: drain.set if asked == "drain" else lambda: stack.ask(pause, job_id)}
    child = Asked([STARTED, state_of(len(BYTES), tmp_path, 7), Suspended()])
    lease = claimed(stack, job_id)
    supervised(stack, lease, child, draining=drain, artifacts=bucket.store)

    assert (stack.job(job_id).status, stack.job(job_id).losses) == (status, 0)
    assert [state.step for state in stack.states(job_id)] == [7]
    [told] = told_at
    assert told < PIECES  # the training makes its last state meanwhile


def test_a_drained_job_whose_state_is_stored_too_slowly_is_given_back_with_the_state_before(
    stack: Stack, bucket: InsideBucket, up: SlowLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "DRAIN_SECONDS", 0.2)
    drain = threading.Event()
    job_id = add_job(stack, bucket, max_attempts=1)
    up.passed, up.after = 0, {BEGUN: drain.set}
    lines = [STARTED, state_of(1000, tmp_path, 3), state_of(len(BYTES), tmp_path, 7), Suspended()]
    supervised(stack, claimed(stack, job_id), Played(lines), draining=drain, artifacts=bucket.store)

    assert BEGUN <= up.passed < PIECES
    job = stack.job(job_id)
    assert (job.status, job.status_reason, job.losses) == (JobStatus.QUEUED, StatusReason.WORKER_DRAINING, 0)
    assert [state.step for state in stack.states(job_id)] == [3]
    assert (len(bucket.keys()), bucket.torn()) == (2, [])


def test_a_training_over_its_memory_limit_is_not_left_alone_while_its_state_is_stored(
    stack: Stack, bucket: InsideBucket, up: SlowLine, tmp_path: Path
) -> None:
    job_id = add_job(stack, bucket, max_memory_bytes=1)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)

    class Heavy(Played):
        pid = process.pid

        def kill(self) -> None:
            process.kill()

    up.passed = 0
    child = Heavy([state_of(len(BYTES), tmp_path, 7)], lives_on=True)
    with process:
        supervised(stack, claimed(stack, job_id), child, artifacts=bucket.store)

    assert up.passed < PIECES
    job = stack.job(job_id)
    assert (job.status, job.status_reason) == (JobStatus.QUEUED, StatusReason.OUT_OF_MEMORY)
    assert stack.states(job_id) == []
    assert (bucket.keys(), bucket.torn()) == ([stack.dataset_key], [])
