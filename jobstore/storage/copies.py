"""Blobs of a remote store as files of this host, kept for the next who needs them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from jobstore.scratch import own_scratch
from jobstore.storage.interface import Beat, StorageFailed

KEPT_BYTES = 1024**3
BEAT_SECONDS = 1.0
Fetch = Callable[[str, Path, Beat | None], int]


@dataclass
class _Copy:
    path: Path
    size: int
    users: int = 0


class LocalCopies:
    """Copies in a folder of this process's own, fetched once however many ask; threads may share it.

    A blob never changes, so a copy is as good as the blob. Those in use stay; of the others at most `kept_bytes`, the
    least recently used go first. The folder goes with `close`, or, after a kill, when the next process makes its own.
    """

    def __init__(self, root: Path, fetch: Fetch, kept_bytes: int = KEPT_BYTES) -> None:
        self._root = root
        self._fetch = fetch
        self._kept_bytes = kept_bytes
        self._held = ExitStack()
        self._folder: Path | None = None
        self._changed = threading.Condition()
        self._fetching: set[str] = set()
        self._copies: OrderedDict[str, _Copy] = OrderedDict()

    @contextmanager
    def use(self, key: str, beat: Beat | None) -> Iterator[Path]:
        """The copy of a blob, fetched if there is none. Raises StorageFailed.

        `beat` is called while it is fetched, by whomever.
        """
        copy = self._take(key, beat) or self._make(key, beat)
        try:
            yield copy.path
        finally:
            with self._changed:
                copy.users -= 1
                self._drop_surplus()

    def close(self) -> None:
        self._held.close()

    def _take(self, key: str, beat: Beat | None) -> _Copy | None:
        """A copy that is there, now in use; None when the caller is to fetch it."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: key not in self._fetching, BEAT_SECONDS):
                    copy = self._copies.get(key)
                    if copy is None:
                        self._fetching.add(key)
                        return None
                    copy.users += 1
                    self._copies.move_to_end(key)
                    return copy
            # Not under the lock, which whoever fetches needs at the end: a beat may take long, or raise.
            if beat is not None:
                beat()

    def _make(self, key: str, beat: Beat | None) -> _Copy:
        try:
            path = self._own_folder() / key.rpartition("/")[2]
            try:
                copy = _Copy(path, self._fetch(key, path, beat), users=1)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            with self._changed:
                self._copies[key] = copy
            return copy
        finally:
            with self._changed:
                self._fetching.discard(key)
                self._changed.notify_all()

    def _own_folder(self) -> Path:
        with self._changed:
            if self._folder is None:
                try:
                    self._folder = self._held.enter_context(own_scratch(self._root, f"copies_{uuid4().hex}"))
                except OSError as error:
                    raise StorageFailed(f"no folder for copies of stored bytes: {error.strerror}") from error
            return self._folder

    def _drop_surplus(self) -> None:
        idle = [key for key, copy in self._copies.items() if not copy.users]
        surplus = sum(self._copies[key].size for key in idle) - self._kept_bytes
        for key in idle:
            if surplus <= 0:
                return
            copy = self._copies.pop(key)
            copy.path.unlink(missing_ok=True)
            surplus -= copy.size
