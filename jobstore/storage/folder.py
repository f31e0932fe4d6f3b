"""Artifacts in a folder that every API and worker process can reach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit
from urllib.request import url2pathname
from uuid import uuid4

from jobstore.ids import Prefix
from jobstore.storage.interface import (
    ArtifactStore,
    Beat,
    BlobMissing,
    BlobReader,
    BlobWriter,
    StorageFailed,
    checked,
    reason,
)
from pals_core.durable import sync

# Lies in the folder, and so tells it from the empty place of a file system that is not mounted.
MARK = ".pals-artifacts"


class _FileReader(BlobReader):
    def __init__(self, file: IO[bytes], start: int, stop: int | None) -> None:
        file.seek(start)
        self._file = file
        self._left = None if stop is None else stop - start

    def read(self, size: int = -1) -> bytes:
        if self._left is not None:
            size = self._left if size < 0 else min(size, self._left)
        try:
            data = self._file.read(size)
        except OSError as error:
            raise StorageFailed(reason(error)) from error
        if self._left is not None:
            self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


class _FileWriter(BlobWriter):
    """Writes under a temporary name in the blob's own folder."""

    def __init__(self, target: Path) -> None:
        super().__init__()
        self._target = target
        self._temporary = _temporary(target)
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._temporary.open("wb")

    def _append(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise StorageFailed(reason(error)) from error

    def _publish(self) -> None:
        """Sync, rename and sync the folder."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.rename(self._target)
            sync(self._target.parent)
        except OSError as error:
            raise StorageFailed(reason(error)) from error

    def _discard(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)


class ArtifactFolder(ArtifactStore):
    """A folder, named by a `file:///…` address or an absolute path.

    Without its mark the folder is a store that is away, unless it is a new one or holds blobs from before there were
    marks: these get theirs.
    """

    def __init__(self, url: str, *, new: bool = False) -> None:
        """`new` says that nothing is kept in it yet, so that an empty folder may be the right one."""
        self.root = Path(url2pathname(urlsplit(url).path) if url.startswith("file:") else url)
        self._new = new

    def path(self, key: str) -> Path:
        """Where the bytes of `key` lie."""
        return self.root / checked(key)

    def writer(self, key: str) -> BlobWriter:
        path = self.path(key)
        self._find(writing=True)
        try:
            return _FileWriter(path)
        except OSError as error:
            raise StorageFailed(reason(error)) from error

    def open(self, key: str, start: int = 0, stop: int | None = None) -> BlobReader:
        path = self.path(key)
        with self._reading():
            return _FileReader(path.open("rb"), start, stop)

    @contextmanager
    def local(self, key: str, *, beat: Beat | None = None) -> Iterator[Path]:  # noqa: ARG002 (nothing is fetched)
        """The stored file itself."""
        path = self.path(key)
        with self._reading():
            path.stat()
        yield path

    def delete(self, key: str) -> None:
        path = self.path(key)
        self._find(writing=True)
        try:
            path.unlink(missing_ok=True)
            _temporary(path).unlink(missing_ok=True)
        except OSError as error:
            raise StorageFailed(reason(error)) from error

    def ping(self) -> None:
        # A name of its own: several processes may ask at the same moment.
        key = f".ready-{uuid4().hex}"
        with self.writer(key) as writer:
            writer.write(b"ready")
            writer.commit()
        self.delete(key)

    def close(self) -> None:
        """Nothing is open."""

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            self._find()
            raise BlobMissing(reason(error)) from error
        except OSError as error:
            raise StorageFailed(reason(error)) from error

    def _find(self, *, writing: bool = False) -> None:
        """Raise StorageFailed unless the store is there; mark one in use, and a new one that is written to."""
        mark = self.root / MARK
        # Asked before the mark: another thread may make it between the two, and the store is then no longer new.
        new = self._new
        try:
            mark.stat()
            self._new = False
            return
        except (FileNotFoundError, NotADirectoryError):
            in_use = _holds_blobs(self.root)
        except OSError as error:
            raise StorageFailed(reason(error)) from error
        if not in_use and not (writing and new):
            raise StorageFailed("the artifact store is away: its folder is not mounted, or not the one it was")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # Without content it is there whole or not at all.
            mark.touch()
            sync(self.root)
            self._new = False
        except OSError as error:
            # One that is full is in use all the same.
            if not in_use:
                raise StorageFailed(reason(error)) from error


def _holds_blobs(root: Path) -> bool:
    return any(name.startswith(f"{Prefix.ARTIFACT}_") for _, _, names in os.walk(root) for name in names)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")
