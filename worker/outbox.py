"""Checkpoints on their way from the training process to its supervisor, not more often than is of use."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from pals_core.training.events import CheckpointSaved

INTERVAL_SECONDS = 5.0


class Outbox:
    """Keeps the newest best and the newest last checkpoint until it is time to hand them over.

    A training of short epochs saves many times a second; only what is still best or last at the end of an interval
    is worth storing. Each file gets a second name, which keeps its bytes when the trainer replaces its own; the
    supervisor removes it.
    """

    def __init__(self, folder: Path, say: Callable[[CheckpointSaved], None]) -> None:
        self._folder = folder
        self._say = say
        self._waiting: list[CheckpointSaved] = []
        self._count = 0
        self._due = 0.0
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, saved: CheckpointSaved) -> None:
        """Take a checkpoint that the trainer has just written."""
        self._count += 1
        kept = self._folder / f"{self._count:06d}.pals.safetensors"
        os.link(saved.path, kept)
        for older in [older for older in self._waiting if saved.is_best or not older.is_best]:
            self._waiting.remove(older)
            Path(older.path).unlink()
        self._waiting.append(saved.model_copy(update={"path": str(kept)}))
        if saved.result is not None or time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Hand over what waits."""
        for saved in self._waiting:
            self._say(saved)
        self._waiting = []
        self._due = time.monotonic() + INTERVAL_SECONDS
