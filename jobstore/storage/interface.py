"""What every artifact store does: blobs appear whole under keys such as `default/datasets/art_…`."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

CHUNK = 1024 * 1024
Beat = Callable[[], None]


class StorageFailed(Exception):
    """The artifact store could not keep or give the bytes; says why, without paths, hosts or keys."""


class BlobMissing(StorageFailed):
    """The store is there, the bytes are not."""


def reason(error: Exception) -> str:
    """An error of a store in words that name neither its place nor its owner."""
    number = error.errno if isinstance(error, OSError) else None
    return f"the artifact store failed: {os.strerror(number) if number else type(error).__name__}"


def checked(key: str) -> str:
    """`key`, unless it leads out of the store."""
    if any(part in {"", ".", ".."} for part in key.split("/")):
        raise ValueError(f"not an artifact key: {key!r}")
    return key


@dataclass(frozen=True)
class StoredBlob:
    """What is known of bytes once they are whole."""

    sha256: str
    size: int


class BlobReader(ABC):
    """Reads the bytes of one blob, or of a range of it, in order."""

    @abstractmethod
    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, all that are left for -1, none at the end. Raises StorageFailed."""

    @abstractmethod
    def close(self) -> None:
        """Give up what is open; never waits and never fails."""

    def __enter__(self) -> BlobReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlobWriter(ABC):
    """Takes the bytes of one blob while hashing them; `commit` makes it appear whole, `abort` leaves nothing."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._ended = False
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append bytes. Raises StorageFailed (disk full, say)."""
        self._append(data)
        self._hash.update(data)
        self.size += len(data)

    def commit(self) -> StoredBlob:
        """Make the blob appear; after this it survives a power cut. Raises StorageFailed."""
        self._publish()
        self._ended = True
        return StoredBlob(self._hash.hexdigest(), self.size)

    def abort(self) -> None:
        """Remove what was written, unless it was committed; never fails, and may wait for the store."""
        if not self._ended:
            self._ended = True
            self._discard()

    @abstractmethod
    def _append(self, data: bytes) -> None: ...

    @abstractmethod
    def _publish(self) -> None: ...

    @abstractmethod
    def _discard(self) -> None: ...

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class ArtifactStore(ABC):
    """Bytes under keys, written once and whole. Threads may share it. A key that leads out of it is a ValueError."""

    @abstractmethod
    def writer(self, key: str) -> BlobWriter:
        """Start a blob. Raises StorageFailed."""

    @abstractmethod
    def open(self, key: str, start: int = 0, stop: int | None = None) -> BlobReader:
        """Read a blob, or its bytes from `start` up to, not including, `stop`. Raises StorageFailed, BlobMissing.

        What is open is read to its end, also when the blob is deleted meanwhile.
        """

    @abstractmethod
    def local(self, key: str, *, beat: Beat | None = None) -> AbstractContextManager[Path]:
        """A file with the bytes of a blob while the block lasts, not to be written. Raises StorageFailed, BlobMissing.

        `beat` is called between pieces where the bytes have to be fetched, which may take minutes, and about once a
        second while somebody else fetches them. What it raises ends the wait and leaves nothing half-fetched.
        """

    def link(self, key: str, *, media_type: str, disposition: str) -> str | None:  # noqa: ARG002 (of stores that can)
        """An address that gives the blob to whoever knows it, for a minute; None where the API is to give it.

        The answer there has the given Content-Type and Content-Disposition. Raises StorageFailed.
        """
        return None

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a blob and what interrupted writes of it left; harmless when nothing is. Raises StorageFailed."""

    @abstractmethod
    def ping(self) -> None:
        """Raise StorageFailed unless a blob can be written."""

    @abstractmethod
    def close(self) -> None:
        """Close connections; the store is not used any more."""

    def put(self, key: str, source: Path, *, beat: Beat | None = None) -> StoredBlob:
        """Copy a file into the store, calling `beat` between pieces; if that raises, nothing is stored.

        Raises StorageFailed.
        """
        with source.open("rb") as file, self.writer(key) as writer:
            while data := file.read(CHUNK):
                writer.write(data)
                if beat is not None:
                    beat()
            return writer.commit()

    def fetch(self, key: str, target: Path, *, beat: Beat | None = None) -> StoredBlob:
        """Copy a blob into a file, and say what was copied. Raises StorageFailed, BlobMissing."""
        digest, size = hashlib.sha256(), 0
        try:
            with self.open(key) as blob, target.open("wb") as file:
                while data := blob.read(CHUNK):
                    digest.update(data)
                    size += len(data)
                    file.write(data)
                    if beat is not None:
                        beat()
        except OSError as error:
            raise StorageFailed(reason(error)) from error
        return StoredBlob(digest.hexdigest(), size)

    def read(self, key: str) -> bytes:
        """All bytes stored under `key`, of a blob that fits into memory. Raises StorageFailed, BlobMissing."""
        with self.open(key) as blob:
            return blob.read()
