"""Damaged and forged checkpoint files, drawn from a seed, and what reading one leads to.

A damaged file has bytes changed, cut, doubled or added. A forged one comes from someone who knows the format: its
description, its container's header or its tensors are changed, and the digest is right.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pals_core.checkpoint.container import HEADER_KEY, with_digest
from pals_core.errors import InvalidCheckpoint, InvalidForecastInput
from pals_core.forecast.forecaster import load_forecaster

HOSTILE_NUMBERS = (
    0, 1, -1, 2, 3, 7, 127, 128, 255, 1000, 65_536, 2**31 - 1, 2**31, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63,
    2**64, 10**30, -(2**63), 0.0, -0.0, 0.5, -1.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), -float("inf"),
)  # fmt: skip
HOSTILE_VALUES: tuple[Any, ...] = (
    *HOSTILE_NUMBERS, None, True, False, "", "a", "NaN", "fp16", "int8", "complex64", "float32", "U8", "F64", "BF16",
    "BOOL", "\u0000", "\ud800", "\u202e", "x" * 5000, [], {}, [[]], [None], [0, 1], {"a": 1}, {"name": "dlinear"}, "W",
    "h", "9" * 60 + "h",
)  # fmt: skip
HOSTILE_WORDS = (
    b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff",
    b"\xff\xff\xff\x7f",
)  # fmt: skip


class Files:
    """Draws mutated files of the given ones; equal seeds draw equal files."""

    def __init__(self, originals: list[bytes], seed: int) -> None:
        self._originals = originals
        self._random = random.Random(seed)

    def draw(self) -> tuple[str, bytes]:
        """Return how a file was mutated, and its bytes."""
        mutation = self._random.choice(MUTATIONS)
        content = bytearray(self._random.choice(self._originals))
        return mutation.__name__, bytes(mutation(content, self._random))


def outcome(content: bytes, path: Path) -> str:
    """Write a file, load it and forecast with it; return `loaded` or `refused`. Whatever else happens is a fault.

    A forecaster that a forger made may have to say that its forecast is not finite.
    """
    path.write_bytes(content)
    try:
        load_forecaster(path).forecast()
    except InvalidForecastInput:
        return "loaded"
    except InvalidCheckpoint as error:
        if not error.message or "\n" in error.message or len(error.message) > 1000:
            raise AssertionError(f"an error that is not one line: {error.message[:2000]}") from error
        return "refused"
    return "loaded"


def truncated(content: bytearray, draw: random.Random) -> bytearray:
    return content[: draw.randrange(len(content))]


def bits_flipped(content: bytearray, draw: random.Random) -> bytearray:
    for _ in range(draw.choice((1, 1, 2, 8))):
        content[_anywhere(content, draw)] ^= 1 << draw.randrange(8)
    return content


def bytes_overwritten(content: bytearray, draw: random.Random) -> bytearray:
    place = _anywhere(content, draw)
    content[place : place + 4] = draw.choice((*HOSTILE_WORDS, draw.randbytes(4)))
    return content


def bytes_inserted(content: bytearray, draw: random.Random) -> bytearray:
    place = _anywhere(content, draw)
    content[place:place] = draw.randbytes(draw.choice((1, 4, 8, 1000)))
    return content


def bytes_removed(content: bytearray, draw: random.Random) -> bytearray:
    place = _anywhere(content, draw)
    del content[place : place + draw.choice((1, 4, 8, 1000))]
    return content


def span_doubled(content: bytearray, draw: random.Random) -> bytearray:
    place, length = _anywhere(content, draw), draw.choice((1, 16, 256))
    content[place:place] = content[place : place + length]
    return content


def bytes_appended(content: bytearray, draw: random.Random) -> bytearray:
    return content + draw.randbytes(draw.choice((1, 8, 100_000)))


def header_length_changed(content: bytearray, draw: random.Random) -> bytearray:
    length = _header_end(content) - 8
    near = (length - 1, length + 1, length - 8, length + 8, len(content) - 8, len(content) - 7)
    far = [number for number in HOSTILE_NUMBERS if isinstance(number, int) and 0 <= number < 2**64]
    content[:8] = struct.pack("<Q", max(0, draw.choice((*near, *far))))
    return content


def digest_forged(content: bytearray, draw: random.Random) -> bytearray:
    """Random bytes under a digest that is right."""
    for _ in range(draw.choice((1, 2, 8))):
        content[_anywhere(content, draw)] = draw.randrange(256)
    return _signed(content)


def tensor_bytes_forged(content: bytearray, draw: random.Random) -> bytearray:
    start = _header_end(content)
    for _ in range(draw.choice((1, 2, 8))):
        place = draw.randrange(start, len(content))
        content[place : place + 4] = draw.choice((*HOSTILE_WORDS, draw.randbytes(4)))[: len(content) - place]
    return _signed(content)


def positions_forged(content: bytearray, draw: random.Random) -> bytearray:
    """The first bytes of a code of positions, or all of it."""
    header = _header(content)
    codes = [entry for name, entry in header.items() if name.endswith(".positions") and entry["shape"][0]]
    start, stop = (_header_end(content) + offset for offset in draw.choice(codes)["data_offsets"])
    few = min(stop - start, draw.choice((1, 2, 8, stop - start)))
    content[start : start + few] = draw.randbytes(few)
    if draw.random() < 0.5:
        content[start] = draw.choice((0, 1, 2, 3, 4, 5, 127, 128, 129, 132, 133, 255))
    return _signed(content)


def description_forged(content: bytearray, draw: random.Random) -> bytearray:
    header = _header(content)
    metadata = header["__metadata__"]
    description = json.loads(metadata[HEADER_KEY])
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        _change_somewhere(description, draw)
    metadata[HEADER_KEY] = json.dumps(description)
    return _with_header(content, header)


def container_forged(content: bytearray, draw: random.Random) -> bytearray:
    header = _header(content)
    for _ in range(draw.choice((1, 1, 2))):
        _change_somewhere(header, draw)
    return _with_header(content, header)


def tensors_swapped(content: bytearray, draw: random.Random) -> bytearray:
    header = _header(content)
    one, other = draw.sample([name for name in header if name != "__metadata__"], 2)
    header[one], header[other] = header[other], header[one]
    return _with_header(content, header)


def name_doubled(content: bytearray, draw: random.Random) -> bytearray:
    header = _header(content)
    name = draw.choice(list(header))
    raw = json.dumps(header).encode()
    return _with_raw_header(
        content, raw[:-1] + b"," + json.dumps(name).encode() + b":" + json.dumps(header[name]).encode() + b"}"
    )


def header_filled_with_rubbish(content: bytearray, draw: random.Random) -> bytearray:
    filling = draw.choice((b"[", b"[],", b'{"a":', b"0,", b'"', b"1" * 50, b"\xff", b"-", b'"\\u0000",'))
    return _with_raw_header(content, b'{"__metadata__":' + filling * draw.choice((1, 100, 20_000)))


MUTATIONS: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    truncated, bits_flipped, bytes_overwritten, bytes_inserted, bytes_removed, span_doubled, bytes_appended,
    header_length_changed, digest_forged, tensor_bytes_forged, positions_forged, description_forged, description_forged,
    description_forged, container_forged, container_forged, tensors_swapped, name_doubled, header_filled_with_rubbish,
)  # fmt: skip


def _anywhere(content: bytearray, draw: random.Random) -> int:
    """Half of the places are in the header, however short it is; a mutation before may have hit its length."""
    return draw.randrange(min(_header_end(content), len(content)) if draw.random() < 0.5 else len(content))


def _header_end(content: bytearray) -> int:
    return 8 + int(struct.unpack("<Q", content[:8])[0])


def _header(content: bytearray) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(content[8 : _header_end(content)])
    return header


def _with_header(content: bytearray, header: Any) -> bytearray:
    return _with_raw_header(content, json.dumps(header).encode())


def _with_raw_header(content: bytearray, raw: bytes) -> bytearray:
    return _signed(bytearray(struct.pack("<Q", len(raw)) + raw + content[_header_end(content) :]))


def _signed(content: bytearray) -> bytearray:
    """Put the digest right where the header still has one."""
    end = _header_end(content)
    try:
        digest = _header(content)["__metadata__"]["sha256"].encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return content
    header = bytes(content[:end]).replace(digest, b"0" * 64, 1)
    return bytearray(with_digest(header, hashlib.sha256(header + content[end:]).hexdigest()) + content[end:])


def _change_somewhere(fields: Any, draw: random.Random) -> None:
    """Replace, remove or add something at a random place of a JSON object."""
    place = fields
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = draw.choice(keys)
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or draw.random() < 0.15:
            break
        place = inner
    kind = draw.randrange(8)
    if kind == 0:
        del place[key]
    elif kind == 1 and isinstance(place, dict):
        place[draw.choice(("surprise", "", str(key) + "x"))] = inner
    elif kind == 1:
        place.append(inner)
    elif kind == 2 and isinstance(inner, int | float) and abs(inner) < 2**60:
        place[key] = inner + draw.choice((-1, 1))
    elif kind == 3 and isinstance(inner, list):
        place[key] = inner * draw.choice((2, 1000))
    else:
        place[key] = draw.choice(HOSTILE_VALUES)
