"""Tensors and their description in one safetensors file: written whole or not at all, verified when read."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pals_core.errors import InvalidCheckpoint


def write_tensors(path: Path, key: str, text: str, tensors: Mapping[str, Tensor]) -> int:
    """Write `tensors` (of the CPU, contiguous), `text` under `key`, and a digest of both; return the size in bytes."""
    with replacing(path) as part:
        # One metadata key: the container writes several in a random order.
        save_file({**tensors, "digest": digest_of(text, tensors)}, part, metadata={key: text})
        return part.stat().st_size


def read_tensors(path: Path, text: str, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Return the tensors of a file whose description is `text`; raises InvalidCheckpoint when they do not match it.

    With `names` a file that holds others is refused before any is read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            present = set(file.keys())
            expected = {*(present if names is None else names), "digest"}
            if present != expected:
                missing, unknown = sorted(expected - present), sorted(present - expected)
                what = f"lacks the tensor {missing[0]!r}" if missing else f"has an unknown tensor {unknown[0][:100]!r}"
                raise InvalidCheckpoint(f"the checkpoint {what}")
            tensors = {name: file.get_tensor(name) for name in sorted(expected)}
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise InvalidCheckpoint(f"the checkpoint's tensors cannot be read: {str(error)[:200]}") from error
    digest = tensors.pop("digest")
    if not torch.equal(digest, digest_of(text, tensors)):
        raise InvalidCheckpoint("the checkpoint is damaged: its contents do not match its digest")
    return tensors


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; what was written takes the place of `path` at once, and is on disk by then.

    It lies in a folder of its own beside `path`, which goes with whatever the writer put into it: safetensors writes
    to a temporary file first. The folder of a writer that was killed is taken over by the next one of the same path.
    """
    folder = unfinished(path)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        part = folder / path.name
        yield part
        _sync(part)
        part.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _sync(path.parent)


def unfinished(path: Path) -> Path:
    """Return the folder in which `path` is being written; it is there afterwards only when the writer was killed."""
    return path.with_name(f".{path.name}.part")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_of(text: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the SHA-256 of a description and its tensors, [32] bytes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
