"""The memory of a training, watched from outside: a limit that holds wherever the processes can be looked at."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pals_core.errors import ErrorCode
from worker.cgroup import oom_kills
from worker.protocol import Failed

LOOK_SECONDS = 0.25
MIB = 1024**2
PROC = Path("/proc")
PS = "/bin/ps"


class MemoryWatch:
    """Looks at the resident memory of a process group, not more often than is of use, and at who ended it."""

    def __init__(self, group: int, limit: int | None) -> None:
        """`limit` in bytes; None: nobody looks."""
        self._group = group
        self._limit = limit
        self._look_at = 0.0
        self._kills = oom_kills()

    def excess(self) -> Failed | None:
        """What to say of a training that has more than its limit; None while it has not."""
        if self._limit is None or time.monotonic() < self._look_at:
            return None
        self._look_at = time.monotonic() + LOOK_SECONDS
        resident = group_memory(self._group)
        if resident <= self._limit:
            return None
        message = (
            f"the training took {resident / MIB:.0f} MiB of memory and may take {self._limit / MIB:.0f}; lower "
            "batch_size, input_len or the model's sizes, or raise max_memory_bytes"
        )
        return Failed(code=ErrorCode.OUT_OF_MEMORY, message=message, param="/limits/max_memory_bytes")

    def killed(self, code: int) -> Failed | None:
        """What to say of a training with this exit status that the system ended because memory was short, else None.

        The system counts whom it ends so, and names nobody: a training killed by something else, while another process
        of the group was killed so, is taken for one of them.
        """
        if code != -signal.SIGKILL or self._kills is None or (oom_kills() or 0) <= self._kills:
            return None
        message = (
            "the system's out-of-memory killer ended the training; lower batch_size, input_len or the model's sizes, "
            "or give its worker more memory"
        )
        return Failed(code=ErrorCode.OUT_OF_MEMORY, message=message)


def group_memory(group: int) -> int:
    """Resident bytes of all processes of a group together; 0 when there are none."""
    return sum(_from_proc(group) if PROC.joinpath("self", "stat").exists() else _from_ps(group))


def smaller_limit(job: int | None, worker: int | None) -> int | None:
    """The limit that holds, of the job's own and the worker's."""
    return min((limit for limit in (job, worker) if limit is not None), default=None)


def be_killed_first() -> None:
    """Let the system, when it is out of memory, kill this process rather than a worker or a service."""
    with suppress(OSError):
        PROC.joinpath("self", "oom_score_adj").write_text("500")


def _from_proc(group: int) -> Iterator[int]:
    page = os.sysconf("SC_PAGE_SIZE")
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):  # it has just ended
            # The name, in brackets, may hold anything; after it come state, parent and group.
            fields = folder.joinpath("stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[2]) == group:
                yield int(fields[21]) * page


def _from_ps(group: int) -> Iterator[int]:
    listing = subprocess.run([PS, "-axo", "pgid=,rss="], capture_output=True, text=True, check=False)  # noqa: S603
    for line in listing.stdout.splitlines():
        of, kibibytes = line.split()
        if int(of) == group:
            yield int(kibibytes) * 1024
