"""Uploads: the body goes to the artifact store as it arrives, hashed, counted and never held in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from anyio import CancelScope
from anyio.to_thread import run_sync
from starlette.requests import Request

from api.multipart import FormReader
from api.problems import ApiProblem, ProblemCode, ProblemItem
from api.schemas.bodies import storable_text
from api.services import Services
from jobstore.artifacts import mark_deleting, new_artifact
from jobstore.database import Database
from jobstore.storage import ArtifactStore, BlobWriter, StorageFailed, StoredBlob
from jobstore.tables import DEFAULT_TENANT

WRITE_BYTES = 1024 * 1024
FORM_OVERHEAD_BYTES = 64 * 1024
MAX_NAME_LENGTH = 200
UNNAMED = "series"
GZIP_MAGIC, PARQUET_MAGIC = b"\x1f\x8b", b"PAR1"
RAW_MEDIA_TYPES = frozenset(
    {
        "text/csv",
        "text/plain",
        "application/csv",
        "application/gzip",
        "application/x-gzip",
        "application/octet-stream",
        "application/parquet",
        "application/x-parquet",
        "application/vnd.apache.parquet",
    }
)


@dataclass(frozen=True)
class Upload:
    """Stored bytes that no dataset refers to yet."""

    name: str
    media_type: str
    artifact_id: str
    artifact_key: str
    blob: StoredBlob


def media_type_of(first: bytes) -> str:
    """What the bytes are, told by how they begin."""
    if first.startswith(PARQUET_MAGIC):
        return "application/vnd.apache.parquet"
    return "application/gzip" if first.startswith(GZIP_MAGIC) else "text/csv"


def dataset_name(*candidates: str | None) -> str:
    """The first name given, without folders; a name too long or with control characters is refused."""
    given = next((name for name in candidates if name), UNNAMED)
    name = given.replace("\\", "/").rstrip("/").rpartition("/")[2].strip() or UNNAMED
    if len(name) > MAX_NAME_LENGTH or not storable_text(name) or not name.isprintable():
        message = f"must have at most {MAX_NAME_LENGTH} printable characters"
        raise ApiProblem(
            ProblemCode.INVALID_QUERY,
            f"The dataset's name {message}.",
            [ProblemItem(parameter="name", message=message)],
        )
    return name


async def receive_upload(request: Request, services: Services, name: str | None) -> Upload:
    """Store the body of a request. Raises ApiProblem, and ClientDisconnect when the client leaves.

    Whatever is raised, no bytes stay behind.
    """
    dataset_name(name)
    limit = services.settings.max_upload_bytes
    form = _form_or_none(request)
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit + (FORM_OVERHEAD_BYTES if form else 0):
        raise _too_large(limit)
    artifact_id, key = await run_sync(_pending, services.database)
    try:
        async with _writing(services.artifacts, key) as writer:
            first = await _store(_file_bytes(request, form, limit), writer)
            if form is not None:
                form.finish()
            final_name = dataset_name(name, form.name if form else None, form.file_name if form else None)
            blob = await run_sync(writer.commit)
    except StorageFailed as error:
        await run_sync(_abandon, services.database, artifact_id)
        raise ApiProblem(ProblemCode.STORAGE_FULL, f"The upload was not kept: {error}.") from error
    except Exception:
        await run_sync(_abandon, services.database, artifact_id)
        raise
    return Upload(final_name, media_type_of(first), artifact_id, key, blob)


def _form_or_none(request: Request) -> FormReader | None:
    """The reader of a multipart body; None for a raw one."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip"}:
        detail = f"Content-Encoding {encoding!r} is not supported; send the file as it is or gzip'd."
        raise ApiProblem(ProblemCode.UNSUPPORTED_MEDIA_TYPE, detail)
    content_type = request.headers.get("content-type", "application/octet-stream")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        if encoding != "identity":
            detail = "Send a multipart form without Content-Encoding; the file in it may be gzip'd."
            raise ApiProblem(ProblemCode.UNSUPPORTED_MEDIA_TYPE, detail)
        return FormReader(content_type)
    if media_type not in RAW_MEDIA_TYPES:
        detail = (
            f"Content-Type {media_type!r} is not a series table. Send text/csv, application/vnd.apache.parquet, "
            "application/gzip, application/octet-stream, or a multipart form with a part named 'file'."
        )
        raise ApiProblem(ProblemCode.UNSUPPORTED_MEDIA_TYPE, detail)
    return None


async def _file_bytes(request: Request, form: FormReader | None, limit: int) -> AsyncIterator[bytes]:
    size = received = 0
    async for chunk in request.stream():
        received += len(chunk)
        data = form.feed(chunk) if form is not None else chunk
        size += len(data)
        if size > limit or received > limit + FORM_OVERHEAD_BYTES:
            raise _too_large(limit)
        yield data


@asynccontextmanager
async def _writing(artifacts: ArtifactStore, key: str) -> AsyncIterator[BlobWriter]:
    """A writer whose bytes are removed unless they were committed, also when this task is cancelled."""
    writer = await run_sync(artifacts.writer, key)
    try:
        yield writer
    finally:
        with CancelScope(shield=True):
            await run_sync(writer.abort)


async def _store(pieces: AsyncIterator[bytes], writer: BlobWriter) -> bytes:
    """Write the pieces in larger ones, off the event loop; returns the first bytes."""
    buffer = bytearray()
    first = b""
    async for piece in pieces:
        buffer += piece
        if len(buffer) >= WRITE_BYTES:
            first = first or bytes(buffer[:16])
            await run_sync(writer.write, bytes(buffer))
            buffer.clear()
    first = first or bytes(buffer[:16])
    await run_sync(partial(writer.write, bytes(buffer)))
    return first


def _too_large(limit: int) -> ApiProblem:
    return ApiProblem(
        ProblemCode.UPLOAD_TOO_LARGE, f"The upload is larger than the {limit} bytes allowed (PALS_MAX_UPLOAD_BYTES)."
    )


def _pending(database: Database) -> tuple[str, str]:
    with database.write() as session:
        artifact = new_artifact(session, DEFAULT_TENANT, "datasets")
        return artifact.id, artifact.key


def _abandon(database: Database, artifact_id: str) -> None:
    with database.write() as session:
        mark_deleting(session, artifact_id)
