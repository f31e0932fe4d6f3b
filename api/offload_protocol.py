"""What the pool and its child processes agree on; imports nothing heavy."""

from __future__ import annotations

from enum import StrEnum

OUT_OF_MEMORY_EXIT = 77
# The code of a refusal: a stored file that the request names is not there.
FILE_GONE = "file_gone"


class OffloadKind(StrEnum):
    """What a child can do; one child does one kind."""

    AUDIT = "audit"
    FORECAST = "forecast"
    VARIANT = "variant"
