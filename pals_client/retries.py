"""When a request is sent again, and after which pause."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import httpx

RETRIED_STATUSES = frozenset({429, 503})


@dataclass(frozen=True)
class Retries:
    """How patient a client is: pauses double from the first to the longest, with jitter."""

    attempts: int = 6
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 15.0

    def pause(self, failures: int, response: httpx.Response | None = None) -> None:
        """Sleep before the next attempt, as long as a Retry-After asks for where there is one."""
        time.sleep(self.pause_seconds(failures, response))

    def pause_seconds(self, failures: int, response: httpx.Response | None) -> float:
        """Seconds to wait after the `failures`-th failure in a row, counting from 1."""
        asked = response.headers.get("retry-after", "") if response is not None else ""
        if asked.isdigit():
            return min(float(asked), self.longest_pause_seconds)
        doubled = self.first_pause_seconds * 2.0 ** min(failures - 1, 30)
        # Half of it at random, so that clients which failed together do not return together.
        return min(doubled, self.longest_pause_seconds) * random.uniform(0.5, 1.0)  # noqa: S311


def was_not_sent(error: httpx.TransportError) -> bool:
    """True when the service cannot have seen the request, so that any request may be sent again."""
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
