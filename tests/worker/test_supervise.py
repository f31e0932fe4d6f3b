"""What a supervisor makes of what its training process says, the process being played."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from jobstore.artifacts import ArtifactFolder
from jobstore.checkpoints import checkpoints_of
from jobstore.leases import claim_next
from jobstore.lifecycle import JobStatus, StatusReason
from pals_core.training.events import CheckpointSaved
from worker.supervise import Supervisor

if TYPE_CHECKING:
    from tests.worker.conftest import Stack


class Played:
    """A training process that says these lines and ends."""

    returncode = 0
    errors = ""

    def __init__(self, lines: list[BaseModel]) -> None:
        self._lines = lines

    @property
    def finished_talking(self) -> bool:
        return not self._lines

    def send(self, line: BaseModel) -> None:
        pass

    def hear(self, timeout: float) -> BaseModel | None:
        return self._lines.pop(0) if self._lines else None

    def kill(self) -> None:
        pass


def test_a_checkpoint_that_cannot_be_read_fails_the_job_and_is_not_kept(stack: Stack, tmp_path: Path) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False)
    damaged = tmp_path / "epoch-001.pals.safetensors"
    damaged.write_bytes(b"\0" * 100)
    saved = CheckpointSaved(
        step=5, epoch=1, path=str(damaged), is_best=True, is_last=True, sparsity=0.5, validation_loss=1.0
    )
    with stack.database.write() as session:
        lease = claim_next(session, "wrk_test", ("cpu",), lease_seconds=60)
    assert lease is not None
    Supervisor(
        lease,
        Played([saved]),
        database=stack.database,
        artifacts=ArtifactFolder(stack.settings.resolved_artifacts_url),
        settings=stack.settings,
        threads=1,
        draining=threading.Event(),
    ).run()

    job = stack.job(job_id)
    assert (job.status, job.status_reason) == (JobStatus.FAILED, StatusReason.INTERNAL)
    assert job.error is not None
    assert job.error["code"] == "invalid_checkpoint"
    assert "damaged file" in job.error["message"]
    with stack.database.read() as session:
        assert not checkpoints_of(session, job_id)
