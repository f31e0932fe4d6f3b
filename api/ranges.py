"""The Range header of a download (RFC 9110, 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.IGNORECASE)


class RangeNotSatisfiable(Exception):
    """The range begins behind the content's end."""


@dataclass(frozen=True)
class ByteRange:
    """The bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int


def requested_range(header: str | None, size: int) -> ByteRange | None:
    """The one range a header asks for; None to send everything.

    Units other than bytes, several ranges and malformed ones are ignored, as the RFC allows or asks.
    Raises RangeNotSatisfiable.
    """
    match = _ONE_RANGE.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        if not last:
            return None
        if int(last) == 0 or size == 0:
            raise RangeNotSatisfiable
        return ByteRange(max(0, size - int(last)), size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise RangeNotSatisfiable
    return ByteRange(start, min(size, int(last) + 1) if last else size)


def names_entity(header: str | None, etag: str) -> bool:
    """True when an If-None-Match header lists `etag` (weak comparison) or is `*`."""
    if header is None:
        return False
    listed = [candidate.strip().removeprefix("W/") for candidate in header.split(",")]
    return "*" in listed or etag in listed


def range_applies(if_range: str | None, etag: str) -> bool:
    """True unless If-Range names another entity; dates and weak tags never match."""
    return if_range is None or if_range.strip() == etag
