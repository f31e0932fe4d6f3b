"""Readable, time-ordered identifiers: `job_0199…`; sorting them sorts by creation."""

from __future__ import annotations

import secrets
import time
from enum import StrEnum


class Prefix(StrEnum):
    DATASET = "ds"
    JOB = "job"
    CHECKPOINT = "ckpt"
    ARTIFACT = "art"
    VARIANT = "var"
    WORKER = "wrk"


def new_id(prefix: Prefix) -> str:
    """A fresh identifier: prefix, milliseconds since the epoch, 64 random bits."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(8)}"
