"""Audits of uploads: run in child processes, written to the job store, taken over when their process died."""

from __future__ import annotations

import json
import threading
from concurrent.futures import CancelledError, Future
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.offload import OffloadPool
from api.offload_process import OffloadCause, OffloadFailed, OffloadRefused
from api.schemas.bodies import storable_text
from jobstore.artifacts import get_artifact
from jobstore.database import Database
from jobstore.database import now as database_now
from jobstore.datasets import finish_audit, renew_audits, take_stale_audits
from jobstore.storage import BlobMissing, StorageFailed
from jobstore.tables import Dataset
from pals_core.errors import ErrorCode

# A process owns an audit this long without renewing; when it dies, another process starts over.
OWNED_SECONDS = 30.0
_log = structlog.get_logger(__name__)


class Audits:
    """The audits of this process, and a thread that renews them and takes over abandoned ones."""

    def __init__(self, database: Database, offload: OffloadPool, *, poll_seconds: float) -> None:
        self._database = database
        self._offload = offload
        self._poll_seconds = poll_seconds
        self._running: set[str] = set()
        self._lock = threading.Lock()
        self.owned_seconds = OWNED_SECONDS
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audits", daemon=True)

    def open(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread; audits that have not ended are started over by another process."""
        self._stop.set()
        self._thread.join()

    def start(self, dataset_id: str, artifact_key: str) -> Future[None]:
        """Audit a dataset; the future ends once the outcome is written, and never fails."""
        written: Future[None] = Future()
        # Running: whoever waits for it and gives up cannot cancel it.
        written.set_running_or_notify_cancel()

        def write(outcome: Future[dict[str, Any]]) -> None:
            try:
                self._write(dataset_id, outcome)
            except SQLAlchemyError as error:
                _log.warning("audit_not_written", dataset_id=dataset_id, kind=type(error).__name__)
            finally:
                with self._lock:
                    self._running.discard(dataset_id)
                written.set_result(None)

        with self._lock:
            self._running.add(dataset_id)
        try:
            outcome = self._offload.audit(artifact_key)
        except OffloadFailed as error:
            outcome = Future()
            outcome.set_exception(error)
        outcome.add_done_callback(write)
        return written

    def _write(self, dataset_id: str, outcome: Future[dict[str, Any]]) -> None:
        profile: dict[str, Any] | None = None
        error: dict[str, Any] | None = None
        try:
            profile = outcome.result()
            if not storable_text(json.dumps(profile, ensure_ascii=False)):
                profile = None
                message = "a column name holds a NUL character or is not text; rename the column"
                error = {"code": ErrorCode.INVALID_TABLE, "message": message, "errors": []}
        except OffloadRefused as refused:
            items = [{"message": item.message, "row": item.row, "column": item.column} for item in refused.problems]
            error = {"code": refused.code, "message": refused.message, "errors": items}
        except OffloadFailed as failed:
            if failed.cause is OffloadCause.CLOSED:
                return
            message = f"the table could not be audited: {failed}"
            error = {"code": f"audit_{failed.cause}", "message": message, "errors": []}
        except BlobMissing:
            error = {"code": "audit_bytes_missing", "message": "the stored bytes are gone; upload again", "errors": []}
        except StorageFailed as failed:
            # Nobody renews it any more, so it is taken over, by this process or another, until the store answers.
            _log.warning("audit_put_off", dataset_id=dataset_id, reason=str(failed))
            return
        except CancelledError:
            return
        with self._database.write() as session:
            finish_audit(session, dataset_id, profile=profile, error=error)

    def _run(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            try:
                self._renew()
                self._take_over()
            except SQLAlchemyError as error:
                _log.warning("audits_not_renewed", kind=type(error).__name__)

    def _renew(self) -> None:
        with self._lock:
            running = {*self._running}
        if running:
            with self._database.write() as session:
                renew_audits(session, running, now=database_now(session), audit_seconds=self.owned_seconds)

    def _take_over(self) -> None:
        with self._database.write() as session:
            stale = take_stale_audits(session, now=database_now(session), audit_seconds=self.owned_seconds)
            abandoned = [session.get_one(Dataset, dataset_id) for dataset_id in stale]
            keys = {
                dataset.id: get_artifact(session, dataset.artifact_id).key
                for dataset in abandoned
                if dataset.artifact_id is not None
            }
        for dataset_id, key in keys.items():
            _log.info("audit_taken_over", dataset_id=dataset_id)
            self.start(dataset_id, key)
