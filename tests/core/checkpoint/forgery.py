"""Checkpoint files changed by someone who can compute their digest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pals_core.checkpoint.container import HEADER_KEY
from pals_core.checkpoint.tensor_file import open_tensors, write_tensors

Change = Callable[[dict[str, Any], dict[str, Tensor]], None]


def forge(source: Path, target: Path, change: Change) -> None:
    """Write what `change` makes of a checkpoint, with a digest that is right."""
    with open_tensors(source) as file:
        description, tensors = json.loads(file.text), file.read_all()
    change(description, tensors)
    write_tensors(target, HEADER_KEY, json.dumps(description), tensors)


def set_field(*path: str | int, value: Any) -> Change:
    def change(description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        place: Any = description
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value

    return change


def set_tensor(name: str, make: Callable[[Tensor], Tensor]) -> Change:
    def change(description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        tensors[name] = make(tensors[name])

    return change


def drop(name: str) -> Change:
    def change(description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        del tensors[name]

    return change


def add(name: str) -> Change:
    def change(description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        tensors[name] = torch.zeros(1)

    return change


def with_value(index: int, value: float) -> Callable[[Tensor], Tensor]:
    def make(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        changed.view(-1)[index] = value
        return changed

    return make
