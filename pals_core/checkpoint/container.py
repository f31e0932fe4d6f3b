"""The safetensors container: bounds are checked before anything is allocated; free of torch.

A file is 8 bytes of header length, little-endian, a JSON header that gives each tensor's type, shape and place,
and the tensors' bytes without gaps (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pals_core.checkpoint.header import CheckpointHeader
from pals_core.errors import InvalidCheckpoint

HEADER_KEY = "pals"
MAX_HEADER_BYTES = 32 * 2**20


def read_header(path: Path) -> CheckpointHeader:
    """Return what a checkpoint file says about itself, without reading its tensors.

    Raises InvalidCheckpoint when the header is damaged or of another version, FileNotFoundError without a file. The
    tensors, and the digest over header and tensors, are left to `read_checkpoint`.
    """
    return parse_header(header_text(path))


def parse_header(text: str) -> CheckpointHeader:
    """Return the header held in `text`; raises InvalidCheckpoint."""
    try:
        version = json.loads(text).get("format_version")
    except (ValueError, RecursionError, AttributeError) as error:
        raise InvalidCheckpoint("the checkpoint's description is not a JSON object") from error
    if version != 1:
        raise InvalidCheckpoint(f"the checkpoint has format version {str(version)[:20]}; this program reads version 1")
    try:
        return CheckpointHeader.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "/".join(str(part) for part in first["loc"])[:200]
        raise InvalidCheckpoint(f"the checkpoint's description is wrong: {place}: {first['msg'][:300]}") from error


def header_text(path: Path, key: str = HEADER_KEY) -> str:
    """Return the description stored under `key` in a file's safetensors header; raises InvalidCheckpoint."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise InvalidCheckpoint(f"the file has {size} bytes; it is no checkpoint, or truncated")
        length = struct.unpack("<Q", prefix)[0]
        if length > MAX_HEADER_BYTES:
            raise InvalidCheckpoint(f"the header claims {length} bytes; at most {MAX_HEADER_BYTES} are read")
        if length > size - 8:
            raise InvalidCheckpoint(f"the header claims {length} bytes of a file of {size}; the file is truncated")
        raw = file.read(length)
    try:
        entries = json.loads(raw, object_pairs_hook=_without_doubles)
    except _NamedTwiceError as error:
        raise InvalidCheckpoint(f"the header names {str(error)[:100]!r} twice") from error
    except (ValueError, RecursionError) as error:
        raise InvalidCheckpoint("the header is not valid JSON; the file is damaged or no checkpoint") from error
    metadata = entries.get("__metadata__") if isinstance(entries, dict) else None
    text = metadata.get(key) if isinstance(metadata, dict) else None
    if not isinstance(text, str) or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidCheckpoint("the file has no checkpoint description; it was not written by this program")
    return text


class _NamedTwiceError(ValueError):
    """A JSON object has the same key twice."""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        names = [name for name, _ in pairs]
        raise _NamedTwiceError(next(name for name in names if names.count(name) > 1))
    return entries
