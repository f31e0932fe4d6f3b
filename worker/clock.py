"""The clock of a lease's deadline: a supervisor and its training process, on one machine, read the same."""

from __future__ import annotations

import time

# On Linux there is one that goes on while the machine is suspended, as the database's does.
_SINCE_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def lease_time() -> float:
    """Seconds since a moment that is the same for all processes of this machine; never set back."""
    return time.monotonic() if _SINCE_BOOT is None else time.clock_gettime(_SINCE_BOOT)
