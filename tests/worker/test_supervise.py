"""What a supervisor makes of what its training process says, the process being played."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel
from sqlalchemy import select

from jobstore.checkpoints import checkpoints_of
from jobstore.control import pause, retry
from jobstore.leases import Lease, claim_next
from jobstore.lifecycle import JobStatus, StatusReason
from jobstore.storage import ArtifactFolder, ArtifactStore, BlobWriter, StorageFailed
from jobstore.tables import Artifact
from pals_core.errors import ErrorCode
from pals_core.training.events import CheckpointSaved, Progress, StateSaved
from tests.worker.first_words import STARTED
from worker import supervise
from worker.clock import lease_time
from worker.ownership import Ownership
from worker.protocol import Failed, StorageUnavailable, Suspend, Suspended, Train
from worker.supervise import Supervisor

if TYPE_CHECKING:
    from tests.worker.conftest import Stack


class Played:
    """A training process that says these lines and ends; one that lives on does so until it is killed."""

    returncode = 0
    errors = ""
    pid = 0

    def __init__(self, lines: Sequence[BaseModel], *, lives_on: bool = False) -> None:
        self._lines = [*lines]
        self._lives_on = lives_on
        self.sent: list[BaseModel] = []
        self.told = threading.Event()  # what to train

    @property
    def finished_talking(self) -> bool:
        return not self._lines and not self._lives_on

    def send(self, line: BaseModel) -> None:
        self.sent.append(line)
        if isinstance(line, Train):
            self.told.set()

    def hear(self, timeout: float) -> BaseModel | None:
        return self._lines.pop(0) if self._lines else None

    def kill(self) -> None:
        pass


def claimed(stack: Stack, job_id: str) -> Lease:
    with stack.database.write() as session:
        lease = claim_next(session, "wrk_test", ("cpu",), lease_seconds=60)
    assert lease is not None
    assert lease.job_id == job_id
    return lease


def supervised(
    stack: Stack,
    lease: Lease,
    child: Played,
    *,
    draining: bool | threading.Event = False,
    artifacts: ArtifactStore | None = None,
    asked: float | None = None,
    usable: bool = True,
) -> Played:
    """Run it; a worker that is `draining`, but for an event of the test's own, begins to with the training."""
    if not isinstance(draining, threading.Event):
        draining = child.told if draining else threading.Event()
    supervisor = Supervisor(
        Ownership(
            lease,
            stack.database,
            asked=lease_time() if asked is None else asked,
            seconds=stack.settings.lease_seconds,
        ),
        child,
        artifacts=artifacts or ArtifactFolder(stack.settings.resolved_artifacts_url),
        settings=stack.settings,
        scratch=stack.scratch,
        threads=1,
        draining=draining,
        under_way=lambda: None,
    )
    assert supervisor.run() is usable
    return child


def saved_state(folder: Path, step: int) -> StateSaved:
    path = folder / f"saved-{step}"
    path.write_bytes(b"state %d" % step)
    return StateSaved(step=step, path=str(path))


def test_a_checkpoint_that_cannot_be_read_fails_the_job_and_is_not_kept(stack: Stack, tmp_path: Path) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False)
    damaged = tmp_path / "epoch-001.pals.safetensors"
    damaged.write_bytes(b"\0" * 100)
    saved = CheckpointSaved(
        step=5, epoch=1, path=str(damaged), is_best=True, is_last=True, sparsity=0.5, validation_loss=1.0
    )
    supervised(stack, claimed(stack, job_id), Played([saved]))

    job = stack.job(job_id)
    assert (job.status, job.status_reason) == (JobStatus.FAILED, StatusReason.INTERNAL)
    assert job.error is not None
    assert job.error["code"] == "invalid_checkpoint"
    assert "damaged file" in job.error["message"]
    with stack.database.read() as session:
        assert not checkpoints_of(session, job_id)


def test_a_drained_job_is_asked_for_its_state_and_given_back_with_it(stack: Stack, tmp_path: Path) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False)
    child = Played([STARTED, saved_state(tmp_path, 7), Suspended()])
    supervised(stack, claimed(stack, job_id), child, draining=True)

    assert [type(line) for line in child.sent] == [Train, Suspend]
    job = stack.job(job_id)
    assert (job.status, job.status_reason, job.losses) == (JobStatus.QUEUED, StatusReason.WORKER_DRAINING, 0)
    assert [state.step for state in stack.states(job_id)] == [7]
    assert list(tmp_path.glob("saved-*")) == []


def test_a_drained_job_that_does_not_answer_is_given_back_with_the_state_before(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "DRAIN_SECONDS", 0.0)
    job_id = stack.add_job(stack.add_dataset(), ring=False, max_attempts=1)
    drain = threading.Event()

    class Silent(Played):
        def hear(self, timeout: float) -> BaseModel | None:
            if stack.states(job_id):
                drain.set()
            return super().hear(timeout)

    child = Silent([saved_state(tmp_path, 3)], lives_on=True)
    supervised(stack, claimed(stack, job_id), child, draining=drain)

    job = stack.job(job_id)
    assert (job.status, job.status_reason, job.losses) == (JobStatus.QUEUED, StatusReason.WORKER_DRAINING, 0)
    assert [state.step for state in stack.states(job_id)] == [3]


def test_a_job_that_was_asked_to_pause_is_paused_with_its_state(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "REPORT_SECONDS", 0.0)
    job_id = stack.add_job(stack.add_dataset(), ring=False)
    lease = claimed(stack, job_id)
    stack.ask(pause, job_id)
    child = supervised(stack, lease, Played([STARTED, saved_state(tmp_path, 7), Suspended()]))

    assert [type(line) for line in child.sent] == [Train, Suspend]
    assert (stack.job(job_id).status, stack.job(job_id).losses) == (JobStatus.PAUSED, 0)
    assert [state.step for state in stack.states(job_id)] == [7]


def test_a_training_may_go_on_until_a_lease_after_the_claim_was_asked_for(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack(PALS_LEASE_SECONDS="60")
    job_id = stack.add_job(stack.add_dataset(), ring=False)
    asked = lease_time() - 10
    child = supervised(stack, claimed(stack, job_id), Played([STARTED, Suspended()]), asked=asked)

    [train] = child.sent
    assert isinstance(train, Train)
    assert train.lease_until == asked + 60


def test_a_lease_that_was_long_in_coming_is_renewed_before_the_training_begins(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack(PALS_LEASE_SECONDS="60")
    job_id = stack.add_job(stack.add_dataset(), ring=False)
    lease, now = claimed(stack, job_id), lease_time()
    child = supervised(stack, lease, Played([STARTED, Suspended()]), asked=now - 59)

    [train] = child.sent
    assert isinstance(train, Train)
    assert now + 60 <= train.lease_until <= lease_time() + 60


def test_the_first_step_is_told_without_waiting_for_the_next_report(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "REPORT_SECONDS", math.inf)
    job_id = stack.add_job(stack.add_dataset(), ring=False)
    seen: list[int] = []

    class Watched(Played):
        def hear(self, timeout: float) -> BaseModel | None:
            if progress := stack.job(job_id).progress:
                seen.append(progress["step"])
            return super().hear(timeout)

    steps = [Progress(step=step, epoch=1, train_losses=(1.0,), sparsity=0.0) for step in (1, 2)]
    supervised(stack, claimed(stack, job_id), Watched([STARTED, *steps, Suspended()]))
    assert seen == [0, 1, 1]


def test_the_next_attempt_is_given_the_newest_state(stack: Stack, tmp_path: Path) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False)
    lines = [STARTED, saved_state(tmp_path, 3), saved_state(tmp_path, 7), Suspended()]
    supervised(stack, claimed(stack, job_id), Played(lines), draining=True)
    given: list[bytes] = []

    class Reading(Played):
        def send(self, line: BaseModel) -> None:
            super().send(line)
            if isinstance(line, Train) and line.resume_from is not None:
                given.append(Path(line.resume_from).read_bytes())
                assert Path(line.resume_from).parent == Path(line.output_dir)

    child = Reading([STARTED.model_copy(update={"resumed_step": 7}), Suspended()])
    supervised(stack, claimed(stack, job_id), child, draining=True)
    assert given == [b"state 7"]
    assert stack.job(job_id).resumed_from == {"job_id": job_id, "step": 7}


def test_a_whole_state_that_does_not_fit_gives_way_to_the_one_before(stack: Stack, tmp_path: Path) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False, max_attempts=1)
    lines = [STARTED, saved_state(tmp_path, 3), saved_state(tmp_path, 7), Suspended()]
    supervised(stack, claimed(stack, job_id), Played(lines), draining=True)
    refusal = Failed(code=ErrorCode.INVALID_CHECKPOINT, message="it was written by another version")
    supervised(stack, claimed(stack, job_id), Played([refusal]))

    job = stack.job(job_id)
    assert (job.status, job.losses) == (JobStatus.QUEUED, 0)
    assert [state.step for state in stack.states(job_id)] == [3]
    said = [event.message for event in stack.events(job_id) if event.level == "warning"]
    assert said == ["the state saved after step 7 cannot be used: it was written by another version"]
    assert stack.events(job_id)[-1].message.endswith("queued again, it goes on after step 3")


def test_a_state_that_cannot_be_stored_is_warned_of_and_nothing_else(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: BlobWriter, data: bytes) -> None:
        raise StorageFailed("the artifact store failed: No space left on device")

    job_id = stack.add_job(stack.add_dataset(), ring=False)
    lease = claimed(stack, job_id)
    monkeypatch.setattr(BlobWriter, "write", full)
    supervised(stack, lease, Played([STARTED, saved_state(tmp_path, 7), Suspended()]), draining=True)

    job = stack.job(job_id)
    assert (job.status, stack.states(job_id)) == (JobStatus.QUEUED, [])
    assert list(tmp_path.glob("saved-*")) == []
    with stack.database.read() as session:
        assert session.scalars(select(Artifact.status).where(Artifact.key.contains("/states/"))).all() == ["pending"]
    said = [event.message for event in stack.events(job_id) if event.level == "warning"]
    assert said == ["the state after step 7 was not saved: the artifact store failed: No space left on device"]
    assert stack.events(job_id)[-1].message == "its worker is stopping; queued again, it starts over"


@pytest.mark.parametrize(
    "away",
    [
        StorageUnavailable(message="no room for the files of the training: No space left on device"),
        StorageUnavailable(message="the dataset cannot be read: Input/output error"),
    ],
)
def test_a_training_without_room_for_its_files_or_without_its_dataset_is_put_off(
    stack: Stack, away: StorageUnavailable
) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False, max_attempts=1)
    supervised(stack, claimed(stack, job_id), Played([away]))
    job = stack.job(job_id)
    assert (job.status, job.status_reason) == (JobStatus.QUEUED, StatusReason.STORAGE_UNAVAILABLE)
    assert (job.losses, job.not_before is not None) == (0, True)
    assert stack.events(job_id)[-1].message.startswith(f"{away.message}; queued again, the next try is at ")


def test_a_gpu_that_is_gone_is_a_loss_and_its_slot_is_of_no_more_use(stack: Stack) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False, max_attempts=2)
    gone = Failed(code=ErrorCode.DEVICE_UNAVAILABLE, message="device cuda was asked for; this machine has none")
    supervised(stack, claimed(stack, job_id), Played([gone]), usable=False)
    job = stack.job(job_id)
    assert (job.status, job.status_reason, job.losses) == (JobStatus.QUEUED, StatusReason.WORKER_LOST, 1)
    assert stack.events(job_id)[-1].message == (
        f"the GPU of its slot is gone: {gone.message}; queued again (1 of 2 attempts lost)"
    )
    supervised(stack, claimed(stack, job_id), Played([gone]), usable=False)
    job = stack.job(job_id)
    assert job.error is not None
    assert (job.status, job.error["code"]) == (JobStatus.FAILED, "worker_lost")


def test_out_of_memory_is_tried_once_more_with_half_batches_from_the_last_state(stack: Stack, tmp_path: Path) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False, max_attempts=1)
    failed = Failed(code=ErrorCode.OUT_OF_MEMORY, message="the device ran out of memory")
    supervised(stack, claimed(stack, job_id), Played([STARTED, saved_state(tmp_path, 3), failed]))
    job = stack.job(job_id)
    assert (job.status, job.status_reason, job.losses) == (JobStatus.QUEUED, StatusReason.OUT_OF_MEMORY, 0)
    assert "computed in two parts; queued again, it goes on after step 3" in stack.events(job_id)[-1].message

    smaller = STARTED.model_copy(update={"resumed_step": 3, "reproducible": False})
    child = supervised(stack, claimed(stack, job_id), Played([smaller, failed]))
    [train] = child.sent
    assert isinstance(train, Train)
    assert train.micro_batches == 2
    job = stack.job(job_id)
    assert (job.status, job.status_reason, job.reproducible) == (JobStatus.FAILED, StatusReason.OUT_OF_MEMORY, False)
    assert stack.ask(retry, job_id).micro_batches == 2


def test_batches_of_one_window_have_no_parts(stack: Stack) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False, training={"batch_size": 1})
    failed = Failed(code=ErrorCode.OUT_OF_MEMORY, message="the device ran out of memory")
    supervised(stack, claimed(stack, job_id), Played([STARTED, failed]))
    assert stack.job(job_id).status == JobStatus.FAILED


@pytest.mark.parametrize("mount_point", [False, True], ids=["nothing there", "an empty folder there"])
def test_a_store_that_does_not_answer_costs_time_and_no_state(stack: Stack, tmp_path: Path, mount_point: bool) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False, max_attempts=1)
    lines = [STARTED, saved_state(tmp_path, 3), Suspended()]
    supervised(stack, claimed(stack, job_id), Played(lines), draining=True)
    artifacts = ArtifactFolder(stack.settings.resolved_artifacts_url)
    away = artifacts.root.rename(tmp_path / "away")
    if mount_point:
        artifacts.root.mkdir()
    before = stack.job(job_id).runtime_seconds
    child = supervised(stack, claimed(stack, job_id), Played([]))
    assert child.sent == []
    job = stack.job(job_id)
    assert (job.status, job.status_reason, job.losses) == (JobStatus.QUEUED, StatusReason.STORAGE_UNAVAILABLE, 0)
    assert job.not_before is not None
    assert job.not_before > job.queued_at
    assert job.runtime_seconds == before
    if mount_point:
        artifacts.root.rmdir()
    away.rename(artifacts.root)
    assert [state.step for state in stack.states(job_id)] == [3]


@pytest.mark.parametrize(("moved", "kept"), [(False, {"best": 10, "last": 20}), (True, {"best": 10, "last": 10})])
def test_checkpoints_made_again_are_stored_only_after_a_move(
    stack: Stack, tmp_path: Path, best_checkpoint: Path, moved: bool, kept: dict[str, int]
) -> None:
    def saved(epoch: int, *, is_best: bool) -> CheckpointSaved:
        path = tmp_path / f"epoch-{epoch:03}.pals.safetensors"
        shutil.copy(best_checkpoint, path)
        return CheckpointSaved(
            step=10 * epoch,
            epoch=epoch,
            path=str(path),
            is_best=is_best,
            is_last=True,
            sparsity=0.5,
            validation_loss=1.0,
        )

    def checkpoints() -> dict[str, tuple[int, str]]:
        with stack.database.read() as session:
            rows = checkpoints_of(session, job_id)
        named = {"best": [row for row in rows if row.is_best], "last": [row for row in rows if row.is_last]}
        return {name: (row.step, row.id) for name, [row] in named.items()}

    job_id = stack.add_job(stack.add_dataset(), ring=False)
    lines = [STARTED, saved_state(tmp_path, 5), saved(1, is_best=True), saved(2, is_best=False), Suspended()]
    supervised(stack, claimed(stack, job_id), Played(lines), draining=True)
    before = checkpoints()

    again = STARTED.model_copy(update={"resumed_step": 5, "reproducible": not moved})
    supervised(stack, claimed(stack, job_id), Played([again, saved(1, is_best=True), Suspended()]), draining=True)
    assert {name: step for name, (step, _) in checkpoints().items()} == kept
    assert checkpoints()["best"] == before["best"]
    assert stack.job(job_id).reproducible is not moved
    assert list(tmp_path.glob("epoch-*")) == []
