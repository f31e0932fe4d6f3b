"""What the pool and its child processes agree on; imports nothing heavy."""

from __future__ import annotations

from enum import StrEnum

OUT_OF_MEMORY_EXIT = 77


class OffloadKind(StrEnum):
    """What a child can do; one child does one kind."""

    AUDIT = "audit"
    FORECAST = "forecast"
