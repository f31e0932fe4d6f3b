"""Checkpoints and states on their way from the training process to its supervisor, not more often than is of use."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pals_core.training.events import CheckpointSaved, StateSaved

INTERVAL_SECONDS = 5.0
Saved = TypeVar("Saved", CheckpointSaved, StateSaved)


class Outbox:
    """Keeps the newest best checkpoint and the newest last until it is time to hand them over.

    A training of short epochs saves many times a second; only what still holds at the end of an interval is worth
    storing. States are saved seldom and go at once, after the checkpoints that were saved before them: a training that
    goes on from a state does not tell of those again. Each file gets a second name, which keeps its bytes when the
    trainer replaces its own; the supervisor removes it.
    """

    def __init__(
        self, folder: Path, say: Callable[[CheckpointSaved | StateSaved], None], interval: float = INTERVAL_SECONDS
    ) -> None:
        self._folder = folder
        self._say = say
        self._interval = interval
        self._checkpoints: list[CheckpointSaved] = []
        self._count = 0
        self._due = 0.0
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, saved: CheckpointSaved | StateSaved) -> None:
        """Take a file that the trainer has just written."""
        if isinstance(saved, StateSaved):
            self.flush()
            self._say(self._keep(saved))
            return
        self._checkpoints = [*self._still_of_use(saved), self._keep(saved)]
        # With the result only the end is left to tell.
        if saved.result is not None or time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Hand over what waits."""
        for saved in self._checkpoints:
            self._say(saved)
        self._checkpoints = []
        self._due = time.monotonic() + self._interval

    def _still_of_use(self, saved: CheckpointSaved) -> Iterator[CheckpointSaved]:
        for older in self._checkpoints:
            is_best, is_last = older.is_best and not saved.is_best, older.is_last and not saved.is_last
            if is_best or is_last:
                yield older.model_copy(update={"is_best": is_best, "is_last": is_last})
            else:
                Path(older.path).unlink()

    def _keep(self, saved: Saved) -> Saved:
        self._count += 1
        kept = self._folder / f"{self._count:06d}.safetensors"
        os.link(saved.path, kept)
        return saved.model_copy(update={"path": str(kept)})
