"""Waiting for what happens in other processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


def eventually(condition: Callable[[], Answer | None], what: str, seconds: float, pause: float = 0.05) -> Answer:
    """The first true answer of `condition`; raises TimeoutError when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(pause)
    raise TimeoutError(f"waited {seconds:g} s in vain: {what}")
