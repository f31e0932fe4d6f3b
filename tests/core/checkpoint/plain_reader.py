"""A reader of checkpoint files written from docs/checkpoint-format.md: numpy, and none of the code under test."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I8": "i1", "U8": "u1"}


def bits(data: np.ndarray) -> np.ndarray:
    return np.unpackbits(data, bitorder="little")


def mask_of(code: np.ndarray, weights: int, active: int) -> np.ndarray:
    if len(code) == 0:
        return np.ones(weights, dtype=bool)
    low_bits, of_inactive = int(code[0]) % 128, code[0] >= 128
    count = (weights - active if of_inactive else active) + 1
    planes_end = 1 + (low_bits * count + 7) // 8
    planes = bits(code[1:planes_end])[: low_bits * count].reshape(low_bits, count)
    low = sum((plane.astype(int) << bit for bit, plane in enumerate(planes)), start=np.zeros(count, dtype=int))
    order = np.arange(count)
    places = ((np.flatnonzero(bits(code[planes_end:])) - order) << low_bits) + np.cumsum(low) + order
    assert places[-1] == weights
    mask = np.full(weights, of_inactive)
    mask[places[:-1]] = not of_inactive
    return mask


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the description, and every tensor dense."""
    content = path.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:header_end])
    metadata = header.pop("__metadata__")
    blank = content[:header_end].replace(metadata["sha256"].encode(), b"0" * 64, 1)
    assert hashlib.sha256(blank + content[header_end:]).hexdigest() == metadata["sha256"]
    description = json.loads(metadata["pals"])
    assert description["format_version"] == 1
    tensors = {}
    for name, entry in header.items():
        start, stop = (header_end + offset for offset in entry["data_offsets"])
        tensor = np.frombuffer(content[start:stop], TYPES[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":  # the upper half of an F32
            tensor = (tensor.astype("<u4") << 16).view("<f4")
        tensors[name] = tensor
    for name, layer in description["layers"].items():
        mask = mask_of(tensors.pop(f"{name}.positions"), int(np.prod(layer["shape"])), layer["active"])
        values = tensors.pop(f"{name}.values").astype("<f4")
        if f"{name}.scales" in tensors:
            of_rows = mask.reshape(layer["shape"][0], -1).sum(axis=1)
            values = (values.T * np.repeat(tensors.pop(f"{name}.scales"), of_rows)).T
        if layer["dtype"] == "complex64":
            values = np.ascontiguousarray(values).view("<c8")[:, 0]
        dense = np.zeros(len(mask), dtype=layer["dtype"])
        dense[mask] = values
        tensors[name] = dense.reshape(layer["shape"])
    return description, tensors
