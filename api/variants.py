"""Checkpoints in other formats: made when first asked for, by one process, in a child of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.blobs import file_name
from api.existence import existing_checkpoint, existing_job, locked_checkpoint
from api.offload import OffloadPool
from api.offload_process import OffloadCause, OffloadFailed, OffloadRefused
from api.offload_protocol import FILE_GONE
from api.problems import ApiProblem, ProblemCode
from jobstore.artifacts import get_artifact, new_artifact
from jobstore.database import Database
from jobstore.database import now as database_now
from jobstore.ids import Prefix, new_id
from jobstore.lifecycle import VariantStatus
from jobstore.scratch import own_scratch
from jobstore.storage import ArtifactStore, StorageFailed
from jobstore.tables import Checkpoint, Dataset, Variant
from jobstore.variants import (
    Making,
    fail_variant,
    is_settled,
    publish_variant,
    renew_variant,
    take_variant,
    variant_of,
)
from pals_core.checkpoint.header import StoredPrecision
from pals_core.errors import ErrorCode
from pals_core.export.formats import ExportFormat

# A process owns a making this long without renewing; when it dies, whoever asks next starts over.
OWNED_SECONDS = 30.0
RENEW_SECONDS = 10.0
# A failure is told for so long; then whoever asks starts over.
FAILED_SECONDS = 10.0
# So many are made or wait to be made by one process.
MAX_MAKINGS = 16
_log = structlog.get_logger(__name__)

_BY_REFUSAL: Mapping[str, ProblemCode] = {
    ErrorCode.EXPORT_FAILED: ProblemCode.VARIANT_FAILED,
    ErrorCode.INVALID_CHECKPOINT: ProblemCode.INVALID_CHECKPOINT,
    ErrorCode.INVALID_TABLE: ProblemCode.VARIANT_FAILED,
    FILE_GONE: ProblemCode.STORAGE_UNAVAILABLE,
}
_BY_CAUSE: Mapping[OffloadCause, ProblemCode] = {
    OffloadCause.OUT_OF_MEMORY: ProblemCode.VARIANT_TOO_LARGE,
    OffloadCause.TIMEOUT: ProblemCode.VARIANT_TOO_LARGE,
}


@dataclass(frozen=True)
class _Sources:
    """What a variant is made from."""

    name: str
    blobs: Mapping[str, str]  # keys of the files that are read


class Variants:
    """The variants that this process makes."""

    def __init__(self, database: Database, artifacts: ArtifactStore, offload: OffloadPool, scratch: Path) -> None:
        self._database = database
        self._artifacts = artifacts
        self._offload = offload
        self._scratch = scratch
        # A thread for each, so that those that wait for their turn are renewed too.
        self._threads = ThreadPoolExecutor(MAX_MAKINGS, thread_name_prefix="variant")
        self._free = threading.BoundedSemaphore(MAX_MAKINGS)

    def close(self) -> None:
        """End the threads, whose children have been stopped: what was being made is left to other processes."""
        self._threads.shutdown()

    def get(self, checkpoint_id: str, kind: ExportFormat, precision: StoredPrecision) -> Variant:
        """A checkpoint's variant as it stands; its making begins unless somebody else is at it. Raises ApiProblem."""
        with self._database.read() as session:
            existing_checkpoint(session, checkpoint_id)
            variant = variant_of(session, checkpoint_id, kind, precision)
            if variant is not None and is_settled(variant, database_now(session)):
                return _told(variant)
        if not self._free.acquire(blocking=False):
            detail = f"{MAX_MAKINGS} variants are being made already; try again soon."
            raise ApiProblem(ProblemCode.VARIANT_UNAVAILABLE, detail)
        begun: Future[None] | None = None
        try:
            with self._database.write() as session:
                checkpoint = locked_checkpoint(session, checkpoint_id)
                making = take_variant(session, checkpoint, kind, precision, seconds=OWNED_SECONDS)
                sources = self._sources(session, checkpoint, kind, precision)
                variant = variant_of(session, checkpoint_id, kind, precision)
                assert variant is not None
            if making is not None:
                begun = self._threads.submit(self._make, making, sources)
                begun.add_done_callback(lambda _made: self._free.release())
        finally:
            if begun is None:
                self._free.release()
        return _told(variant)

    def _sources(
        self, session: Session, checkpoint: Checkpoint, kind: ExportFormat, precision: StoredPrecision
    ) -> _Sources:
        job = existing_job(session, checkpoint.job_id)
        files = {"checkpoint": checkpoint.artifact_id}
        table = session.get_one(Dataset, job.dataset_id).artifact_id
        if table is not None and precision is not StoredPrecision.FP32:
            files["series"] = table
        if checkpoint.evaluation_id is not None and kind is ExportFormat.CARD:
            files["evaluation"] = checkpoint.evaluation_id
        blobs = {name: get_artifact(session, artifact_id).key for name, artifact_id in files.items()}
        return _Sources(file_name(job.name or job.id, ""), blobs)

    def _make(self, making: Making, sources: _Sources) -> None:
        try:
            with own_scratch(self._scratch, new_id(Prefix.VARIANT)) as folder:
                self._make_in(folder / "variant", making, sources)
        except OffloadRefused as refused:
            self._fail(making, _BY_REFUSAL.get(refused.code, ProblemCode.INTERNAL), refused.message)
        except OffloadFailed as failed:
            if failed.cause is OffloadCause.CLOSED:
                self._write(making, seconds=0.0)
                return
            code = _BY_CAUSE.get(failed.cause, ProblemCode.VARIANT_UNAVAILABLE)
            self._fail(making, code, f"The variant was not made: {failed}.")
        except (StorageFailed, OSError) as error:
            message = str(error) if isinstance(error, StorageFailed) else "the scratch folder cannot be written"
            self._fail(making, ProblemCode.STORAGE_UNAVAILABLE, message)
        except SQLAlchemyError as error:
            # It expires, and whoever asks then starts over.
            _log.warning("variant_not_written", checkpoint_id=making.checkpoint_id, kind=type(error).__name__)
        except Exception:
            _log.exception("variant_not_made", checkpoint_id=making.checkpoint_id)
            self._fail(making, ProblemCode.INTERNAL, "Something went wrong here; the log has the details.")

    def _make_in(self, output: Path, making: Making, sources: _Sources) -> None:
        answer = self._offload.variant(
            {
                "output": str(output),
                "format": making.format,
                "precision": making.precision,
                "name": sources.name,
            },
            sources.blobs,
        )
        while True:
            try:
                made = answer.result(RENEW_SECONDS)
                break
            except TimeoutError:
                if not self._write(making, seconds=OWNED_SECONDS):
                    # Deleted meanwhile, or taken over while this process was asleep.
                    answer.cancel()
                    return
        with self._database.write() as session:
            artifact = new_artifact(session, making.tenant_id, "variants")
        blob = self._artifacts.put(artifact.key, output)
        with self._database.write() as session:
            publish_variant(session, making, artifact.id, blob, mse_change=made["mse_change"])

    def _write(self, making: Making, *, seconds: float) -> bool:
        """Renew an attempt; True as well while the database does not answer."""
        try:
            with self._database.write() as session:
                return renew_variant(session, making, seconds=seconds)
        except SQLAlchemyError as error:
            _log.warning("variant_not_renewed", checkpoint_id=making.checkpoint_id, kind=type(error).__name__)
            return True

    def _fail(self, making: Making, code: ProblemCode, message: str) -> None:
        _log.warning("variant_failed", checkpoint_id=making.checkpoint_id, format=making.format, code=code)
        try:
            with self._database.write() as session:
                fail_variant(session, making, {"code": code, "message": message}, seconds=FAILED_SECONDS)
        except SQLAlchemyError as error:
            _log.warning("variant_not_written", checkpoint_id=making.checkpoint_id, kind=type(error).__name__)


def _told(variant: Variant) -> Variant:
    """The variant, or its failure as a problem."""
    if variant.status == VariantStatus.FAILED:
        assert variant.error is not None
        raise ApiProblem(ProblemCode(variant.error["code"]), variant.error["message"])
    return variant
