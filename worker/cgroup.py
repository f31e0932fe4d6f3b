"""What Linux's control groups (version 2, or 1) allow this process, and whether they had to kill."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
PROC = Path("/proc")
VERSION_2 = ""  # what /proc/self/cgroup has in the place of version 1's controllers
SHARE = re.compile(r"(\d+) (\d+)")  # a quota and the period it is for, in microseconds; no quota is "max" or -1
KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def memory_limit() -> int | None:
    """The bytes that our group and all above it allow; None: as many as the machine has."""
    texts = [_text(folder / "memory.max") for folder in _groups(VERSION_2)]
    texts += [_text(folder / "memory.limit_in_bytes") for folder in _groups("memory")]
    return min((int(text) for text in texts if text.isdigit()), default=None)


def cpu_limit() -> float | None:
    """The processors' time that our group and all above it allow, in processors; None: as many as the machine has."""
    texts = [_text(folder / "cpu.max") for folder in _groups(VERSION_2)]
    for folder in _groups("cpu"):
        texts.append(f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}")
    shares = [share for text in texts if (share := SHARE.fullmatch(text))]
    return min((int(share[1]) / int(share[2]) for share in shares), default=None)


def oom_kills() -> int | None:
    """How many processes of our group the out-of-memory killer has ended, or of the machine where no group counts.

    None where nobody counts.
    """
    counters = [folder / "memory.events" for folder in _groups(VERSION_2)]
    counters += [folder / "memory.oom_control" for folder in _groups("memory")]
    for counter in (*counters, PROC / "vmstat"):
        if counted := KILLS.search(_text(counter)):
            return int(counted[1])
    return None


def _groups(controller: str) -> Iterator[Path]:
    """The folders of our group and of those above it, the own one first; none where there is no such controller.

    A container may see no more of them than its own group, at the mount, under whatever path.
    """
    for line in _text(PROC / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            mount, parts = MOUNT / controller, Path(path).parts[1:]
            yield from (mount.joinpath(*parts[:count]) for count in range(len(parts), -1, -1))


def _text(path: Path) -> str:
    """What a file says, stripped; nothing when it cannot be read."""
    with suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""
