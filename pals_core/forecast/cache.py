"""Loaded forecasters, kept for the next forecast."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from pals_core.forecast.forecaster import Forecaster, load_forecaster


@dataclass(frozen=True)
class _Kept:
    stamp: tuple[int, int, int]
    forecaster: Forecaster
    bytes: int


class ForecasterCache:
    """Forecasters of checkpoint files, at most `max_bytes` of them in memory; the least recently used go first.

    A file that was changed is loaded again, one that is gone is not served. Not for several threads at once.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Path, _Kept] = OrderedDict()

    @property
    def bytes(self) -> int:
        """Memory of the forecasters that are kept."""
        return sum(kept.bytes for kept in self._kept.values())

    def load(self, path: str | Path) -> Forecaster:
        """Return the forecaster of a checkpoint file, from memory where it is there.

        One that is larger than the cache is not kept. Raises InvalidCheckpoint, and FileNotFoundError without a file.
        """
        path = Path(path)
        kept = self._kept.pop(path, None)
        # Before it is read: what is written meanwhile then counts as a change.
        stamp = _stamp(path)
        if kept is None or kept.stamp != stamp:
            forecaster = load_forecaster(path)
            kept = _Kept(stamp, forecaster, forecaster.nbytes)
        if kept.bytes <= self.max_bytes:
            self._kept[path] = kept
            while self.bytes > self.max_bytes:
                self._kept.popitem(last=False)
        return kept.forecaster


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes with a file's contents: it is replaced, or grows, or is written to."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
