"""Blobs: a row that says what is stored, and the bytes in a store reached through fsspec.

The way of a blob: its row is committed as `pending`; the bytes go to a temporary name, are synced
and renamed; the row is published in the transaction that makes its owner refer to it. Whatever dies
on that way leaves a pending row, which `sweepable` finds later.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING
from uuid import uuid4

import fsspec
from sqlalchemy import delete, select, update

from jobstore.database import now as database_now
from jobstore.ids import Prefix, new_id
from jobstore.tables import Artifact, Checkpoint, Dataset, State

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

CHUNK = 1024 * 1024
PENDING, PUBLISHED, DELETING = "pending", "published", "deleting"


class StorageFailed(Exception):
    """The artifact store could not keep or give the bytes; says why, without paths of the host."""


class BlobMissing(StorageFailed):
    """The store is there, the bytes are not."""


@dataclass(frozen=True)
class StoredBlob:
    """What is known of bytes once they are whole."""

    sha256: str
    size: int


class BlobWriter:
    """Writes one blob under a temporary name while hashing it; `commit` makes it appear whole."""

    def __init__(self, folder: ArtifactFolder, key: str) -> None:
        self._folder = folder
        self._target = folder.path(key)
        self._temporary = self._target.with_name(f".{self._target.name}.part")
        self._hash = hashlib.sha256()
        self.size = 0
        self._committed = False
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = folder.filesystem.open(str(self._temporary), "wb")

    def write(self, data: bytes) -> None:
        """Append bytes. Raises StorageFailed (disk full, say)."""
        try:
            self._file.write(data)
        except OSError as error:
            raise StorageFailed(_reason(error)) from error
        self._hash.update(data)
        self.size += len(data)

    def commit(self) -> StoredBlob:
        """Sync, rename and sync the folder; after this the blob survives a power cut."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._folder.filesystem.mv(str(self._temporary), str(self._target))
            directory = os.open(self._target.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise StorageFailed(_reason(error)) from error
        self._committed = True
        return StoredBlob(self._hash.hexdigest(), self.size)

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._committed:
            with suppress(OSError):
                self._file.close()
            self._temporary.unlink(missing_ok=True)


class ArtifactFolder:
    """The store: a folder, addressed by keys such as `default/datasets/art_…`."""

    def __init__(self, url: str) -> None:
        self.filesystem, root = fsspec.core.url_to_fs(url)
        if "file" not in self.filesystem.protocol:
            raise ValueError(f"PALS_ARTIFACTS_URL must be a folder (file:///…), not {url.split(':', 1)[0]}:")
        self.root = Path(root)

    def path(self, key: str) -> Path:
        """Where the bytes of `key` lie; refuses a key that leads out of the store."""
        path = self.root / key
        if ".." in Path(key).parts or self.root not in path.parents:
            raise ValueError(f"not an artifact key: {key!r}")
        return path

    def writer(self, key: str) -> BlobWriter:
        """Start a blob. Raises StorageFailed."""
        try:
            return BlobWriter(self, key)
        except OSError as error:
            raise StorageFailed(_reason(error)) from error

    def put(self, key: str, source: Path) -> StoredBlob:
        """Copy a file into the store. Raises StorageFailed."""
        with source.open("rb") as file, self.writer(key) as writer:
            while data := file.read(CHUNK):
                writer.write(data)
            return writer.commit()

    def fetch(self, key: str, target: Path) -> StoredBlob:
        """Copy a blob into a file, and say what was copied. Raises StorageFailed, BlobMissing."""
        digest, size = hashlib.sha256(), 0
        with self.open(key) as blob, target.open("wb") as file:
            try:
                while data := blob.read(CHUNK):
                    digest.update(data)
                    size += len(data)
                    file.write(data)
            except OSError as error:
                raise StorageFailed(_reason(error)) from error
        return StoredBlob(digest.hexdigest(), size)

    def size(self, key: str) -> int:
        """Bytes stored under `key`. Raises StorageFailed when there are none."""
        try:
            return int(self.filesystem.size(str(self.path(key))))
        except OSError as error:
            raise StorageFailed(_reason(error)) from error

    def read(self, key: str) -> bytes:
        """All bytes stored under `key`, of a blob that fits into memory. Raises StorageFailed."""
        with self.open(key) as file:
            try:
                return file.read()
            except OSError as error:
                raise StorageFailed(_reason(error)) from error

    @contextmanager
    def open(self, key: str) -> Iterator[IO[bytes]]:
        """Read a blob. Raises StorageFailed, BlobMissing."""
        try:
            file = self.filesystem.open(str(self.path(key)), "rb")
        except FileNotFoundError as error:
            kind = BlobMissing if self.root.is_dir() else StorageFailed
            raise kind(_reason(error)) from error
        except OSError as error:
            raise StorageFailed(_reason(error)) from error
        with file:
            yield file

    def delete(self, key: str) -> None:
        """Remove a blob and what an interrupted write of it left; harmless when there is nothing."""
        path = self.path(key)
        path.unlink(missing_ok=True)
        path.with_name(f".{path.name}.part").unlink(missing_ok=True)

    def ping(self) -> None:
        """Raise StorageFailed unless a blob can be written."""
        # A name of its own: several processes may ask at the same moment.
        key = f".ready-{uuid4().hex}"
        with self.writer(key) as writer:
            writer.write(b"ready")
            writer.commit()
        self.delete(key)


def _reason(error: OSError) -> str:
    return f"the artifact store failed: {os.strerror(error.errno) if error.errno else type(error).__name__}"


def new_artifact(session: Session, tenant_id: str, kind: str) -> Artifact:
    """A pending row; commit it before writing the bytes under its key."""
    artifact_id = new_id(Prefix.ARTIFACT)
    artifact = Artifact(
        id=artifact_id,
        tenant_id=tenant_id,
        key=f"{tenant_id}/{kind}/{artifact_id}",
        status=PENDING,
        created_at=database_now(session),
    )
    session.add(artifact)
    session.flush()
    return artifact


def get_artifact(session: Session, artifact_id: str) -> Artifact:
    """The row of stored bytes."""
    return session.get_one(Artifact, artifact_id)


def publish(session: Session, artifact_id: str, blob: StoredBlob) -> None:
    """Say that the bytes are whole; belongs into the transaction that refers to them.

    Raises StorageFailed when the sweep took them for abandoned meanwhile.
    """
    published = session.execute(
        update(Artifact)
        .where(Artifact.id == artifact_id, Artifact.status == PENDING)
        .values(status=PUBLISHED, sha256=blob.sha256, size=blob.size)
    )
    if published.rowcount == 0:  # type: ignore[attr-defined]
        raise StorageFailed("the artifact store failed: the bytes were swept before anything referred to them")


def mark_deleting(session: Session, artifact_id: str) -> None:
    """Give an artifact that nothing refers to any more over to the sweep."""
    session.execute(update(Artifact).where(Artifact.id == artifact_id).values(status=DELETING))


def sweepable(session: Session, *, now: datetime, pending_hours: float = 24, batch: int = 100) -> list[tuple[str, str]]:
    """Mark and return (id, key) of artifacts to remove: given up, or pending for a day and unreferenced."""
    referred = (
        select(Dataset.artifact_id)
        .where(Dataset.artifact_id.is_not(None))
        .union_all(
            select(Checkpoint.artifact_id),
            select(State.artifact_id),
            select(Checkpoint.evaluation_id).where(Checkpoint.evaluation_id.is_not(None)),
        )
    )
    abandoned = (
        select(Artifact.id)
        .where(
            Artifact.status == PENDING,
            Artifact.created_at < now - timedelta(hours=pending_hours),
            Artifact.id.not_in(referred),
        )
        .limit(batch)
    )
    session.execute(
        update(Artifact)
        .where(Artifact.id.in_(abandoned.scalar_subquery()))
        .values(status=DELETING)
        .execution_options(synchronize_session=False)
    )
    rows = session.execute(select(Artifact.id, Artifact.key).where(Artifact.status == DELETING).limit(batch)).all()
    return [(row.id, row.key) for row in rows]


def forget(session: Session, artifact_id: str) -> None:
    """Remove the row of an artifact whose bytes are gone."""
    session.execute(delete(Artifact).where(Artifact.id == artifact_id, Artifact.status == DELETING))
