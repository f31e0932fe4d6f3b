"""What the C library does with memory that a training frees."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt (glibc's malloc.h).
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4

_NEVER = 2**31 - 1  # bytes; what an int holds
# To what glibc's own thresholds rise once it has seen blocks of 32 MiB freed, and the number of them it comes with.
_USUAL_TRIM_THRESHOLD = 64 * 2**20
_USUAL_MMAP_MAX = 2**16


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep what is freed for the next allocation, for as long as the context lasts; for the whole process.

    Each step of a training takes the memory that the one before gave back. By default glibc hands much of it to the
    system and gets it again page by page: 26,000 page faults a step for a network of 10 million weights, up to a tenth
    of the step. Where the C library is another one, nothing changes.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        yield
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, _USUAL_MMAP_MAX)
        library.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM_THRESHOLD)
        library.malloc_trim(0)
