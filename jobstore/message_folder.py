"""The embedded broker: a folder with a file for each message, in place of kombu's own of that kind.

That one stops a worker for good which finds a message that is not whole: one that is being written at this moment, or
whose writer was killed. It also keeps on disk which queue an exchange feeds, in a file that can be torn likewise.
"""

from __future__ import annotations

import time
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import filesystem
from kombu.utils.json import loads

# A message is written in much less; what is not whole by then will never be.
_WRITTEN_WITHIN_SECONDS = 60.0


class Channel(filesystem.Channel):
    """Messages go to the queue of their exchange's name, and are read when they are whole."""

    def get_table(self, exchange: str) -> list[tuple[str, str, str]]:
        """Routing key, pattern and queue: an exchange feeds the queue of its own name, as Celery names both alike."""
        return [(exchange, "", exchange)]

    def _queue_bind(self, *_: Any) -> None:
        pass

    def _get(self, queue: str, timeout: float | None = None) -> Any:  # noqa: ARG002
        for path in sorted(Path(self.data_folder_in).glob(f"*.{queue}.msg")):
            try:
                message = loads(path.read_text())  # type: ignore[no-untyped-call]
            except FileNotFoundError:  # another worker's
                continue
            except ValueError:
                _remove_if_old(path)
                continue
            try:
                path.unlink()
            except FileNotFoundError:
                continue
            return message
        raise Empty


class Transport(filesystem.Transport):
    Channel = Channel


def _remove_if_old(path: Path) -> None:
    try:
        if time.time() - path.stat().st_mtime > _WRITTEN_WITHIN_SECONDS:
            path.unlink()
    except FileNotFoundError:
        pass
