"""The safetensors container: bounds are checked before anything is allocated; free of torch.

A file is 8 bytes of header length, little-endian, a JSON header that gives each tensor's type, shape and place,
and the tensors' bytes without gaps (https://huggingface.co/docs/safetensors). The header's `__metadata__` holds a
description and `sha256`, the SHA-256 of the whole file with these 64 digits taken as zeros.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from pals_core.checkpoint.header import CheckpointHeader
from pals_core.errors import InvalidCheckpoint

# Under which a file has its description: of a checkpoint, of a training's state, of a network's dense weights.
HEADER_KEY, STATE_KEY, DENSE_KEY = "pals", "pals_state", "pals_dense"
_KINDS = {
    HEADER_KEY: "a checkpoint",
    STATE_KEY: "the state of a training, to be resumed from",
    DENSE_KEY: "dense weights for other programs",
}
# Parsing JSON takes up to 20 times its size in memory.
MAX_HEADER_BYTES = 16 * 2**20
ITEM_BYTES: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "C64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
_MAX_AXES = 8
_DIGEST_KEY = "sha256"
_NO_DIGEST = "0" * 64
_CHUNK = 2**16


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its type, as safetensors names them, shape, and place in the file in bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Contents:
    """What a file's header says."""

    text: str  # the description
    digest: str
    raw_header: bytes  # with the length before it
    entries: Mapping[str, Entry]

    def verify(self, file: BinaryIO) -> None:
        """Raise InvalidCheckpoint unless the whole file, from header to end, is as it was written."""
        digest = hashlib.sha256(self.raw_header.replace(self.digest.encode(), _NO_DIGEST.encode(), 1))
        file.seek(len(self.raw_header))
        chunk = memoryview(bytearray(_CHUNK))
        while count := file.readinto(chunk):  # type: ignore[attr-defined]
            digest.update(chunk[:count])
        if digest.hexdigest() != self.digest:
            raise InvalidCheckpoint("the checkpoint is damaged: its contents do not match its digest")


def read_header(path: str | Path) -> CheckpointHeader:
    """Return what a checkpoint file says about itself, without reading its tensors.

    Raises InvalidCheckpoint when the header is damaged or of another version, FileNotFoundError without a file. The
    tensors, and the digest over header and tensors, are left to `read_checkpoint`.
    """
    with opened(Path(path)) as file:
        return parse_header(read_contents(file).text)


def opened(path: Path) -> BinaryIO:
    """Open a file to be read, unbuffered; raises InvalidCheckpoint for a folder, FileNotFoundError without a file."""
    try:
        return path.open("rb", buffering=0)
    except IsADirectoryError as error:
        raise InvalidCheckpoint(f"{path} is a folder; give a file in it") from error


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


def read_contents(file: BinaryIO, key: str = HEADER_KEY) -> Contents:
    """Return what the header of an open file says, its description being under `key`; raises InvalidCheckpoint."""
    size = file.seek(0, 2)
    file.seek(0)
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
        fields = json.loads(raw, object_pairs_hook=_without_doubles)
    except _NamedTwiceError as error:
        raise InvalidCheckpoint(f"the header names {str(error)[:100]!r} twice") from error
    except (ValueError, RecursionError) as error:
        raise InvalidCheckpoint("the header is not valid JSON; the file is damaged or no checkpoint") from error
    metadata = fields.pop("__metadata__", None) if isinstance(fields, dict) else None
    metadata = metadata if isinstance(metadata, dict) else {}
    text = metadata.get(key)
    if key not in metadata and (other := next((kind for kind in _KINDS if kind in metadata), None)):
        raise InvalidCheckpoint(f"the file holds {_KINDS[other]}; what is needed here is {_KINDS[key]}")
    if not isinstance(text, str) or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidCheckpoint("the file has no checkpoint description; it was not written by this program")
    digest = metadata.get(_DIGEST_KEY)
    if not isinstance(digest, str) or len(digest) != len(_NO_DIGEST) or not digest.isascii():
        raise InvalidCheckpoint("the file has no digest; it was not written by this program")
    data_start = 8 + length
    entries = {name: _entry(name, entry, data_start) for name, entry in fields.items()}
    end = data_start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != end:
            raise InvalidCheckpoint(f"the place of {name[:100]!r} in the file overlaps another or leaves a gap")
        end = entry.stop
    if end != size:
        raise InvalidCheckpoint(f"the header describes {end} bytes; the file has {size}: it is truncated or too long")
    return Contents(text, digest, prefix + raw, entries)


def header_bytes(key: str, text: str, entries: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """Return the beginning of a file, its digest still zeros, of tensors (type and shape) that follow in this order."""
    fields: dict[str, Any] = {"__metadata__": {_DIGEST_KEY: _NO_DIGEST, key: text}}
    end = 0
    for name, (dtype, shape) in entries.items():
        start, end = end, end + math.prod(shape) * ITEM_BYTES[dtype]
        fields[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    raw = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # the tensors begin at a multiple of 8
    return struct.pack("<Q", len(raw)) + raw


def with_digest(header: bytes, digest: str) -> bytes:
    """Return `header_bytes` with the digest of the whole file in its place."""
    return header.replace(_NO_DIGEST.encode(), digest.encode(), 1)


def _entry(name: str, fields: Any, data_start: int) -> Entry:
    if isinstance(fields, dict) and fields.keys() == {"dtype", "shape", "data_offsets"}:
        dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
        are_numbers = _is_whole(shape, _MAX_AXES) and _is_whole(offsets, 2) and len(offsets) == 2
        item_bytes = ITEM_BYTES.get(dtype) if isinstance(dtype, str) else None
        if are_numbers and item_bytes and math.prod(shape) * item_bytes == offsets[1] - offsets[0]:
            return Entry(dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])
    raise InvalidCheckpoint(f"type, shape and place of {name[:100]!r} are not those of a tensor")


def _is_whole(numbers: Any, most: int) -> bool:
    """True of at most `most` whole numbers of a size that a file could have."""
    return (
        isinstance(numbers, list)
        and len(numbers) <= most
        and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
    )


class _NamedTwiceError(ValueError):
    """A JSON object has the same key twice."""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, value in pairs:
        if name in entries:
            raise _NamedTwiceError(name)
        entries[name] = value
    return entries
