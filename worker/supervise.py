"""Runs one attempt of one job: owns its lease, its training process, its progress and its limits."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from pydantic import BaseModel

from jobstore.checkpoints import NewCheckpoint, checkpoints_of
from jobstore.events import EventLevel, told_after
from jobstore.leases import (
    Beginning,
    LeaseLost,
    Report,
    discard_state,
    finish,
    lose,
    record,
    release,
    release_smaller,
    status_of,
    wait_for_storage,
)
from jobstore.lifecycle import JobStatus, StatusReason
from jobstore.settings import Settings
from jobstore.states import NewState, SavedState
from jobstore.storage import ArtifactStore, BlobMissing, StorageFailed
from pals_core.errors import ErrorCode, InvalidCheckpoint
from pals_core.training.events import CheckpointSaved, Finished, Progress, Started, StateSaved
from worker.child import TrainingProcess
from worker.endings import REASONS, STOPPED_ITSELF, cause_of_death, may_fit_in_parts, success
from worker.keep import Interrupted, fetch_newest_state, keep_checkpoint, keep_state, new_artifact_of
from worker.memory import MemoryWatch, smaller_limit
from worker.narrate import Narrator
from worker.ownership import Ownership
from worker.protocol import Failed, LeaseRenewed, StorageUnavailable, Suspend, Suspended, Train

_log = logging.getLogger(__name__)

HEAR_SECONDS = 0.25
REPORT_SECONDS = 1.0
DRAIN_SECONDS = 10.0  # for the step in progress and its state; then what was saved before has to do


class Supervisor:
    """One attempt. `run` returns when the job is in a final state, queued again, or no longer ours."""

    def __init__(
        self,
        ownership: Ownership,
        child: TrainingProcess,
        *,
        artifacts: ArtifactStore,
        settings: Settings,
        scratch: Path,
        threads: int,
        draining: threading.Event,
        under_way: Callable[[], object],
    ) -> None:
        """`under_way` is called once the training has made its first step."""
        self._ownership = ownership
        self._lease = lease = ownership.lease
        self._write = ownership.write
        self._child = child
        self._artifacts = artifacts
        self._settings = settings
        self._threads = threads
        self._draining = draining
        self._under_way = under_way
        self._folder = scratch / f"{lease.job_id}-{lease.token}"
        self._narrator = Narrator()
        limit = smaller_limit(lease.limits.get("max_memory_bytes"), settings.training_memory_bytes)
        self._memory = MemoryWatch(child.pid, limit)
        self._reports = 0
        self._began = time.monotonic()
        self._reported = self._began
        self._status = JobStatus.RUNNING
        self._state: SavedState | None = None
        self._training = False  # the child knows its job
        self._begun = self._stepping = False
        self._kept_step = 0  # checkpoints up to it are in the store already
        self._drain_until: float | None = None
        self._suspending = self._suspended = False
        self._finished: Finished | None = None
        self._failed: Failed | None = None
        self._device_lost = False
        self._held = ExitStack()

    def run(self) -> bool:
        """Train the job to its end, whichever that is; False when its GPU was found to be gone."""
        try:
            self._start()
            while not self._step():
                pass
        except LeaseLost:
            _log.warning("job %s: the lease is lost, its training is stopped", self._lease.job_id)
        except Interrupted:
            _log.info("job %s: ended while its bytes were moved", self._lease.job_id)
        except BlobMissing:
            self._end_failed(StatusReason.INTERNAL, "dataset_missing", "the bytes of the dataset are gone")
        except StorageFailed as error:
            self._child.kill()
            self._wait_for_storage(str(error))
        except InvalidCheckpoint as error:
            self._child.kill()
            self._end_failed(StatusReason.INTERNAL, error.code, f"the training left a damaged file: {error.message}")
        finally:
            self._child.kill()
            self._held.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        return not self._device_lost

    def _start(self) -> None:
        try:
            self._folder.mkdir(mode=0o700)
        except OSError as error:
            raise StorageFailed(f"no folder for the training: {error.strerror}") from error
        table = self._held.enter_context(self._artifacts.local(self._lease.dataset_key, beat=self._beat))
        states = self._lease.states
        self._state, resume_from = fetch_newest_state(states, self._artifacts, self._folder, self._beat, self._discard)
        self._keep_lease()
        self._training = True
        self._child.send(
            Train(
                spec=self._lease.spec,
                table_path=str(table),
                dataset_sha256=self._lease.dataset_sha256,
                output_dir=str(self._folder),
                resume_from=None if resume_from is None else str(resume_from),
                state_interval_seconds=self._settings.state_interval_seconds,
                micro_batches=self._lease.micro_batches,
                threads=self._threads,
                lease_until=self._ownership.until,
            )
        )

    def _discard(self, state: SavedState, why: str) -> None:
        self._write(lambda session: discard_state(session, self._lease, state.step, why))

    def _step(self) -> bool:
        """Hear one line or wait for it, do what is due; True when the attempt is over."""
        line = self._child.hear(HEAR_SECONDS)
        if line is not None:
            self._hear(line)
        if self._look():
            return True
        if self._child.finished_talking:
            self._settle()
            return True
        return False

    def _beat(self) -> None:
        """The same while bytes move and nothing is heard. Raises Interrupted when the attempt is over."""
        if self._look():
            raise Interrupted

    def _look(self) -> bool:
        """Do what is due whatever the training says; True when the attempt is over."""
        self._keep_lease()
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._report()
        if self._status is JobStatus.CANCELLING:
            self._child.kill()
            self._end(JobStatus.CANCELLED, "cancelled", reason=StatusReason.CANCELLED)
            return True
        if self._over_time() or self._over_memory():
            return True
        if self._draining.is_set() and self._drain_until is None:
            self._drain_until = now + DRAIN_SECONDS
        stopping = self._drain_until is not None or self._status is JobStatus.PAUSING
        if (stopping and not self._training) or (self._drain_until is not None and now >= self._drain_until):
            self._release()
            return True
        if stopping and not self._suspending:
            self._suspending = True
            self._child.send(Suspend())
        return False

    def _hear(self, line: BaseModel) -> None:
        if isinstance(line, Started):
            self._begin(line)
        elif isinstance(line, CheckpointSaved):
            self._store_checkpoint(line)
        elif isinstance(line, StateSaved):
            self._store_state(line)
        elif isinstance(line, Suspended):
            self._suspended = True
        elif isinstance(line, Finished):
            self._finished = line
        elif isinstance(line, Failed):
            self._failed = line
        elif isinstance(line, StorageUnavailable):
            raise StorageFailed(line.message)
        else:
            self._narrator.hear(line)
            if isinstance(line, Progress) and not self._stepping:
                self._stepping = True
                self._report()  # whoever waits for the first step need not wait for the next report
                self._under_way()

    def _keep_lease(self) -> None:
        """Renew the lease when it is time to."""
        if not self._ownership.renewal_is_due:
            return
        self._ownership.renew(self._runtime())
        if self._training:
            self._child.send(LeaseRenewed(until=self._ownership.until))

    def _begin(self, started: Started) -> None:
        """Say where the training begins, and learn what the job's record has of the steps to be done again."""
        self._begun = True
        job_id, after = self._lease.job_id, self._state.step if self._state else 0
        if self._lease.attempt > 1:
            self._narrator.told = self._write(lambda session: told_after(session, job_id, after))
        # A training that repeats itself makes the very checkpoints that are there.
        if self._state is not None and self._lease.reproducible and started.reproducible:
            steps = self._write(lambda session: [checkpoint.step for checkpoint in checkpoints_of(session, job_id)])
            self._kept_step = max(steps, default=0)
        self._narrator.hear(started)
        self._report(beginning=Beginning(self._state, started.reproducible))

    def _report(
        self,
        *,
        beginning: Beginning | None = None,
        checkpoint: NewCheckpoint | None = None,
        state: NewState | None = None,
    ) -> None:
        """Write what was heard, and learn the job's state, in which a request to stop shows."""
        self._reported = time.monotonic()
        if not (beginning or checkpoint or state or self._narrator.waiting):
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
            state=state,
            beginning=beginning,
        )
        self._status = self._write(lambda session: record(session, self._lease, report))

    def _store_checkpoint(self, saved: CheckpointSaved) -> None:
        """Keep a checkpoint's bytes, then register it together with all that was heard before it."""
        if saved.step <= self._kept_step and saved.result is None:
            Path(saved.path).unlink()
            return
        self._report(checkpoint=keep_checkpoint(saved, self._artifacts, self._new_artifact, self._beat))

    def _store_state(self, saved: StateSaved) -> None:
        """Keep a state, likewise; a training can do without."""
        try:
            state = keep_state(saved, self._artifacts, self._new_artifact, self._beat)
        except StorageFailed as error:
            self._narrator.note(f"the state after step {saved.step} was not saved: {error}", EventLevel.WARNING)
            return
        self._report(state=state)

    def _new_artifact(self, kind: str) -> tuple[str, str]:
        return self._write(lambda session: new_artifact_of(session, self._lease.job_id, kind))

    def _release(self) -> None:
        """Give the job back; a training that has not saved its state by now goes on from the one before."""
        self._child.kill()
        self._queue_again("its worker is stopping", StatusReason.WORKER_DRAINING)

    def _queue_again(self, why: str, reason: StatusReason) -> None:
        self._write(partial(release, lease=self._lease, why=why, reason=reason, runtime_seconds=self._runtime()))

    def _lose(self, message: str) -> None:
        self._write(partial(lose, lease=self._lease, message=message, runtime_seconds=self._runtime()))

    def _wait_for_storage(self, message: str) -> None:
        # Until the training has begun, the time is the store's, not the job's.
        runtime = self._runtime() if self._begun else self._lease.runtime_seconds
        self._write(partial(wait_for_storage, lease=self._lease, message=message, runtime_seconds=runtime))

    def _over_time(self) -> bool:
        limit = self._lease.limits["max_runtime_seconds"]
        if limit is None or self._runtime() <= limit:
            return False
        self._child.kill()
        self._end_failed(StatusReason.TIMEOUT, "runtime_exceeded", f"ran longer than max_runtime_seconds = {limit:g}")
        return True

    def _over_memory(self) -> bool:
        excess = self._memory.excess()
        if excess is None:
            return False
        self._child.kill()
        self._report()
        self._fail(excess)
        return True

    def _settle(self) -> None:
        """The training process has ended and was heard out: say what came of it."""
        self._report()
        code = self._child.returncode or 0
        failed = self._failed or self._memory.killed(code)
        if self._finished is not None:
            result = self._finished.result.model_dump(mode="json")
            self._end(JobStatus.SUCCEEDED, success(self._finished), result=result)
        elif self._suspended:
            self._release()
        elif self._failed is not None and self._state is not None and self._is_about_the_state(self._failed):
            self._do_without(self._state, self._failed.message)
        elif failed is not None:
            self._fail(failed)
        elif code < 0 or code in STOPPED_ITSELF:
            self._lose(f"the training process {cause_of_death(code)}")
        else:
            text = f"the training process exited with status {code}: {self._child.errors or 'it said nothing'}"
            self._end_failed(StatusReason.INTERNAL, "training_crashed", text)

    def _fail(self, failed: Failed) -> None:
        if may_fit_in_parts(self._lease, failed.code):
            text = f"{failed.message}; its batches are now computed in two parts"
            self._write(partial(release_smaller, lease=self._lease, why=text, runtime_seconds=self._runtime()))
        elif failed.code is ErrorCode.DEVICE_UNAVAILABLE:
            # The slot has a GPU, or it would not have been given the job.
            self._device_lost = True
            self._lose(f"the GPU of its slot is gone: {failed.message}")
        else:
            reason = REASONS.get(failed.code, StatusReason.INTERNAL)
            self._end_failed(reason, failed.code, failed.message, param=failed.param)

    def _is_about_the_state(self, failed: Failed) -> bool:
        return not self._begun and failed.code is ErrorCode.INVALID_CHECKPOINT

    def _do_without(self, state: SavedState, why: str) -> None:
        """Whole as it is, the state is of no use (of another version, say): the next attempt takes the one before."""
        self._discard(state, why)
        self._queue_again("its training could not be resumed", StatusReason.INTERNAL)

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
        end = partial(finish, to=to, message=message, reason=reason, error=error, result=result)
        self._write(partial(end, lease=self._lease, runtime_seconds=self._runtime()))

    def _runtime(self) -> float:
        """Seconds of all attempts so far."""
        return self._lease.runtime_seconds + time.monotonic() - self._began
