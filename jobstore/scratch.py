"""Folders of work in progress; what killed processes left goes when the next one makes a folder."""

from __future__ import annotations

import fcntl
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"
_log = logging.getLogger(__name__)


@contextmanager
def own_scratch(root: Path, name: str) -> Iterator[Path]:
    """Make the folder `name` below `root`, which is the caller's until the block ends or its process does.

    A folder is in use as long as somebody holds its lock, which the system gives up for a process that dies.
    """
    folder = root / name
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (root / LOCK).open("w") as gate:
        # Nobody else may look at a folder between its making and its locking.
        fcntl.flock(gate, fcntl.LOCK_EX)
        _remove_abandoned(root)
        folder.mkdir(mode=0o700)
        held = (folder / LOCK).open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        held.close()


def _remove_abandoned(root: Path) -> None:
    for folder in root.iterdir():
        if not folder.is_dir():
            continue
        try:
            with (folder / LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
        except BlockingIOError:
            continue
        except OSError as error:
            _log.warning("a dead process's folder is not removed yet: %s", type(error).__name__)
