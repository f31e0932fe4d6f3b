"""What the C library does with memory that is freed.

By default glibc hands much of it to the system and gets it again page by page, although the next step of a training, or
the next forecast, takes as much. Where the C library is another one, nothing is changed here.

Another choice is made before a process starts: that glibc asks Linux for pages of 2 MiB instead of 4 KiB.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Parameters of mallopt (glibc's malloc.h).
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4

_NEVER = 2**31 - 1  # bytes; what an int holds
# To what glibc's own thresholds rise once it has seen blocks of 32 MiB freed, and the number of them it comes with.
_USUAL_TRIM_THRESHOLD = 64 * 2**20
_USUAL_MMAP_MAX = 2**16

# A processor remembers where a few thousand pages are; a step of a large network goes through more small ones.
LARGE_PAGES: Mapping[str, str] = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def pages_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a process that trains: what `environment` says of the heap, and otherwise large pages."""
    return {name: environment.get(name, value) for name, value in LARGE_PAGES.items()}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep what is freed for the next allocation, for as long as the context lasts; for the whole process.

    A training step of a network of 10 million weights then has no page faults instead of 26,000.
    """
    keep_freed_memory()
    try:
        yield
    finally:
        give_freed_memory_back()


def keep_freed_memory() -> None:
    """Keep what is freed for the next allocation, from now on; for the whole process."""
    if (library := _glibc()) is not None:
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, _NEVER)


def give_freed_memory_back() -> None:
    """Give what has been freed to the system, and do so from now on where it is much."""
    if (library := _glibc()) is not None:
        library.mallopt(_MMAP_MAX, _USUAL_MMAP_MAX)
        library.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM_THRESHOLD)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
