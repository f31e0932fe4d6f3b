"""Tensors and their description in one safetensors file: written whole or not at all, verified when read."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from pals_core.checkpoint.container import HEADER_KEY, Contents, Entry, header_bytes, opened, read_contents, with_digest
from pals_core.durable import sync
from pals_core.errors import InvalidCheckpoint

_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "C64": torch.complex64,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _TYPES.items()}


class TensorFile:
    """An open file; its tensors are read when asked for, each into memory of its own, by any number of threads."""

    def __init__(self, file: BinaryIO, contents: Contents) -> None:
        self._file = file
        self._contents = contents

    @property
    def text(self) -> str:
        """The description."""
        return self._contents.text

    @property
    def entries(self) -> Mapping[str, Entry]:
        return self._contents.entries

    def verify(self) -> None:
        """Raise InvalidCheckpoint unless the whole file is as it was written."""
        self._contents.verify(self._file)

    def require(self, names: set[str]) -> None:
        """Raise InvalidCheckpoint unless the file has these tensors and no other."""
        if missing := sorted(names.difference(self.entries)):
            raise InvalidCheckpoint(f"the checkpoint lacks the tensor {missing[0]!r}")
        if unknown := sorted(set(self.entries).difference(names)):
            raise InvalidCheckpoint(f"the checkpoint has an unknown tensor {unknown[0][:100]!r}")

    def type_of(self, name: str) -> torch.dtype:
        return _TYPES[self.entries[name].dtype]

    def read(self, name: str, memory: Tensor | None = None) -> Tensor:
        """Return a tensor that the file has, in new memory, or in the bytes `memory`, as many as it takes."""
        entry = self.entries[name]
        content = torch.empty(entry.stop - entry.start, dtype=torch.uint8) if memory is None else memory
        self._read_into(content, name, entry.start)
        # A byte that is neither 0 nor 1 is no boolean, and torch would not say so.
        tensor = content != 0 if entry.dtype == "BOOL" else content.view(self.type_of(name))
        return tensor.view(entry.shape)

    def read_rows(self, name: str, first: int, stop: int) -> Tensor:
        """Return some rows (first axis) of a tensor of numbers."""
        entry, dtype = self.entries[name], self.type_of(name)
        rows = torch.empty((stop - first, *entry.shape[1:]), dtype=dtype)
        row_bytes = math.prod(entry.shape[1:]) * dtype.itemsize
        self._read_into(rows.view(-1).view(torch.uint8), name, entry.start + first * row_bytes)
        return rows

    def _read_into(self, content: Tensor, name: str, start: int) -> None:
        left = content.numpy().data
        while len(left):  # one call reads less than 2 GiB
            # The place is said each time, so that threads can read at once.
            if not (count := os.preadv(self._file.fileno(), [left], start)):
                raise InvalidCheckpoint(f"{name} ends early; the file has become shorter while it was read")
            left, start = left[count:], start + count

    def read_all(self) -> dict[str, Tensor]:
        return {name: self.read(name) for name in self.entries}


@contextmanager
def open_tensors(path: Path, key: str = HEADER_KEY) -> Iterator[TensorFile]:
    """Open a file whose description is under `key`; raises InvalidCheckpoint, FileNotFoundError without a file."""
    with opened(path) as file:
        yield TensorFile(file, read_contents(file, key))


def write_tensors(path: Path, key: str, text: str, tensors: Mapping[str, Tensor]) -> int:
    """Write `tensors` (of the CPU, contiguous), `text` under `key`, and a digest of both; return the size in bytes."""
    # Large elements first: each tensor then begins at a multiple of its elements' size, which some readers need.
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    kinds = {name: (_NAMES[tensors[name].dtype], tuple(tensors[name].shape)) for name in names}
    header = header_bytes(key, text, kinds)
    parts = [memoryview(header), *(_bytes_of(tensors[name]) for name in names)]
    with replacing(path) as part:
        with part.open("wb") as file, ThreadPoolExecutor(1) as beside:
            digest = beside.submit(_digest, parts)
            for content in parts:
                file.write(content)
            file.seek(0)
            file.write(with_digest(header, digest.result()))
        return part.stat().st_size


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; what was written takes the place of `path` at once, and is on disk by then.

    It lies in a folder of its own beside `path`, which goes with whatever the writer put into it: safetensors writes
    to a temporary file first. The folder of a writer that was killed is taken over by the next one of the same path.
    Raises FileNotFoundError when the folder that `path` is to lie in is not there.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(path.parent))
    folder = unfinished(path)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        part = folder / path.name
        yield part
        sync(part)
        part.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync(path.parent)


def unfinished(path: Path) -> Path:
    """Return the folder in which `path` is being written; it is there afterwards only when the writer was killed."""
    return path.with_name(f".{path.name}.part")


def _digest(parts: Iterable[memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, shared with it."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
