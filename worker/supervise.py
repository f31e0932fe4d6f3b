"""Runs one attempt of one job: owns its lease, its training process, its progress and its limits."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from jobstore.artifacts import ArtifactFolder, StorageFailed, StoredBlob, new_artifact
from jobstore.checkpoints import NewCheckpoint, NewEvaluation
from jobstore.database import Database
from jobstore.leases import Lease, LeaseLost, Report, finish, lose, record, release, renew, status_of
from jobstore.lifecycle import JobStatus, StatusReason
from jobstore.settings import Settings
from jobstore.tables import Job
from pals_core.checkpoint.container import read_header
from pals_core.checkpoint.header import NetworkCost
from pals_core.errors import ErrorCode, InvalidCheckpoint
from pals_core.training.events import CheckpointSaved, Finished
from worker.child import TrainingProcess
from worker.narrate import Narrator
from worker.protocol import EXIT_LEASE_ENDED, EXIT_ORPHANED, Failed, LeaseRenewed, Train

T = TypeVar("T")
STOPPED_ITSELF = {
    EXIT_LEASE_ENDED: "stopped because its lease was not renewed in time",
    EXIT_ORPHANED: "stopped because its supervisor was gone",
}
_log = logging.getLogger(__name__)

HEAR_SECONDS = 0.25
REPORT_SECONDS = 1.0
DATABASE_RETRY_SECONDS = 0.5
REASONS = {
    ErrorCode.INVALID_TABLE: StatusReason.USER_ERROR,
    ErrorCode.INVALID_SPEC: StatusReason.USER_ERROR,
    ErrorCode.DIVERGED: StatusReason.USER_ERROR,
    ErrorCode.NOT_DETERMINISTIC: StatusReason.USER_ERROR,
    ErrorCode.OUT_OF_MEMORY: StatusReason.OUT_OF_MEMORY,
}


class Supervisor:
    """One attempt. `run` returns when the job is in a final state, queued again, or no longer ours."""

    def __init__(
        self,
        lease: Lease,
        child: TrainingProcess,
        *,
        database: Database,
        artifacts: ArtifactFolder,
        settings: Settings,
        threads: int,
        draining: threading.Event,
    ) -> None:
        self._lease = lease
        self._child = child
        self._database = database
        self._artifacts = artifacts
        self._settings = settings
        self._threads = threads
        self._draining = draining
        self._folder = settings.scratch_dir / f"{lease.job_id}-{lease.token}"
        self._narrator = Narrator()
        self._reports = 0
        self._began = time.monotonic()
        self._reported = self._began
        self._status = JobStatus.RUNNING
        self._owned_until = self._began + settings.lease_seconds
        self._renew_at = self._began + settings.lease_seconds / 3
        self._finished: Finished | None = None
        self._failed: Failed | None = None

    def run(self) -> None:
        """Train the job to its end, whichever that is."""
        try:
            self._start()
            while not self._step():
                pass
        except LeaseLost:
            _log.warning("job %s: the lease is lost, its training is stopped", self._lease.job_id)
        except StorageFailed as error:
            self._child.kill()
            self._end_failed(StatusReason.INTERNAL, "storage_failed", str(error))
        except InvalidCheckpoint as error:
            self._child.kill()
            self._end_failed(StatusReason.INTERNAL, error.code, f"the training left a damaged file: {error.message}")
        finally:
            self._child.kill()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        self._folder.mkdir(parents=True, mode=0o700)
        self._child.send(
            Train(
                spec=self._lease.spec,
                table_path=str(self._artifacts.path(self._lease.dataset_key)),
                dataset_sha256=self._lease.dataset_sha256,
                output_dir=str(self._folder),
                threads=self._threads,
                lease_seconds=self._settings.lease_seconds,
            )
        )

    def _step(self) -> bool:
        """Hear one line or wait for it, do what is due; True when the attempt is over."""
        line = self._child.hear(HEAR_SECONDS)
        if line is not None:
            self._hear(line)
        now = time.monotonic()
        if now >= self._renew_at:
            self._renew()
        if now - self._reported >= REPORT_SECONDS:
            self._report()
        if self._status is JobStatus.CANCELLING:
            self._child.kill()
            self._end(JobStatus.CANCELLED, "cancelled", reason=StatusReason.CANCELLED)
            return True
        if self._draining.is_set():
            return self._drain()
        if self._over_time():
            return True
        if self._child.finished_talking:
            self._settle()
            return True
        return False

    def _hear(self, line: BaseModel) -> None:
        if isinstance(line, CheckpointSaved):
            self._store(line)
        elif isinstance(line, Finished):
            self._finished = line
        elif isinstance(line, Failed):
            self._failed = line
        else:
            self._narrator.hear(line)

    def _renew(self) -> None:
        asked = time.monotonic()
        seconds = self._settings.lease_seconds
        runtime = self._runtime()
        self._write(lambda session: renew(session, self._lease, lease_seconds=seconds, runtime_seconds=runtime))
        # Counted from before the question, so that the child never trusts the lease for longer
        # than the database grants it.
        self._owned_until = asked + seconds
        self._renew_at = asked + seconds / 3
        self._child.send(LeaseRenewed(seconds=self._owned_until - time.monotonic()))

    def _report(self, checkpoint: NewCheckpoint | None = None) -> None:
        """Write what was heard, and learn the job's state, in which a request to stop shows."""
        self._reported = time.monotonic()
        if checkpoint is None and not self._narrator.waiting:
            self._status = self._write(lambda session: status_of(session, self._lease))
            return
        events, points = self._narrator.take()
        self._reports += 1
        report = Report(
            number=self._reports,
            events=events,
            points=points,
            progress=self._narrator.progress(),
            current=self._narrator.current(),
            checkpoint=checkpoint,
        )
        self._status = self._write(lambda session: record(session, self._lease, report))

    def _store(self, saved: CheckpointSaved) -> None:
        """Keep a checkpoint's bytes, then register it together with all that was heard before it."""
        path = Path(saved.path)
        artifact_id, blob = self._put("checkpoints", path)
        evaluation = None
        if saved.evaluation_path is not None:
            evaluation = NewEvaluation(*self._put("evaluations", Path(saved.evaluation_path)))
        cost = read_header(path).model_dump(mode="json", include=set(NetworkCost.model_fields))
        path.unlink()
        metrics = saved.result.metrics.model_dump(mode="json") if saved.result else None
        self._report(
            NewCheckpoint(
                artifact_id=artifact_id,
                blob=blob,
                step=saved.step,
                epoch=saved.epoch,
                is_best=saved.is_best,
                is_last=saved.is_last,
                sparsity=saved.sparsity,
                validation_loss=saved.validation_loss,
                metrics=metrics,
                cost=cost,
                evaluation=evaluation,
            )
        )

    def _put(self, kind: str, path: Path) -> tuple[str, StoredBlob]:
        """Keep the bytes of a file; returns the id of their artifact, which is pending, and what they are."""

        def new(session: Session) -> tuple[str, str]:
            tenant_id = session.get_one(Job, self._lease.job_id).tenant_id
            artifact = new_artifact(session, tenant_id, kind)
            return artifact.id, artifact.key

        artifact_id, key = self._write(new)
        return artifact_id, self._artifacts.put(key, path)

    def _drain(self) -> bool:
        self._child.kill()
        runtime = self._runtime()
        message = "its worker is stopping; queued again"
        self._write(lambda session: release(session, self._lease, message=message, runtime_seconds=runtime))
        return True

    def _over_time(self) -> bool:
        limit = self._lease.limits["max_runtime_seconds"]
        if limit is None or self._runtime() <= limit:
            return False
        self._child.kill()
        self._end_failed(StatusReason.TIMEOUT, "runtime_exceeded", f"ran longer than max_runtime_seconds = {limit:g}")
        return True

    def _settle(self) -> None:
        """The training process has ended and was heard out: say what came of it."""
        self._report()
        code = self._child.returncode or 0
        if self._finished is not None:
            result = self._finished.result
            early = ", stopped early" if self._finished.stopped_early else ""
            message = f"succeeded{early}: test MSE {result.metrics.mse:.4g} at sparsity {result.sparsity:.3f}"
            self._end(JobStatus.SUCCEEDED, message, result=result.model_dump(mode="json"))
        elif self._failed is not None:
            failed = self._failed
            reason = REASONS.get(failed.code, StatusReason.INTERNAL)
            self._end_failed(reason, failed.code, failed.message, param=failed.param)
        elif code < 0 or code in STOPPED_ITSELF:
            text = f"the training process {_cause_of_death(code)}"
            runtime = self._runtime()
            self._write(lambda session: lose(session, self._lease, message=text, runtime_seconds=runtime))
        else:
            tail = self._child.errors or "it said nothing"
            self._end_failed(
                StatusReason.INTERNAL, "training_crashed", f"the training process exited with status {code}: {tail}"
            )

    def _end_failed(self, reason: StatusReason, code: str, message: str, *, param: str | None = None) -> None:
        error: dict[str, object] = {"type": reason, "code": code, "message": message, "param": param}
        self._end(JobStatus.FAILED, message, reason=reason, error=error)

    def _end(
        self,
        to: JobStatus,
        message: str,
        *,
        reason: StatusReason | None = None,
        error: dict[str, object] | None = None,
        result: dict[str, object] | None = None,
    ) -> None:
        runtime = self._runtime()
        self._write(
            lambda session: finish(
                session,
                self._lease,
                to,
                message=message,
                runtime_seconds=runtime,
                reason=reason,
                error=error,
                result=result,
            )
        )

    def _runtime(self) -> float:
        """Seconds of all attempts so far."""
        return self._lease.runtime_seconds + time.monotonic() - self._began

    def _write(self, work: Callable[[Session], T]) -> T:
        """Run one transaction, again while the database is away and the lease lasts. Raises LeaseLost."""
        while True:
            try:
                with self._database.write() as session:
                    return work(session)
            except DBAPIError as error:
                if time.monotonic() > self._owned_until:
                    raise LeaseLost(self._lease.job_id) from error
                _log.warning("job %s: the database is away (%s)", self._lease.job_id, type(error).__name__)
                time.sleep(DATABASE_RETRY_SECONDS)


def _cause_of_death(code: int) -> str:
    """What an exit status that is a loss, not a failure, says to a person."""
    if code in STOPPED_ITSELF:
        return STOPPED_ITSELF[code]
    hint = "; often the system's answer to a lack of memory" if -code == signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{hint}"
