"""What parts two checkpoints: their specs, masks, weights and metrics."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pals_core.checkpoint.file import Checkpoint
from pals_core.checkpoint.header import CheckpointHeader, Metrics


class FieldDifference(BaseModel):
    """A field of the spec, or of the data it was trained on, that differs; null where one of them has none."""

    model_config = ConfigDict(frozen=True)

    pointer: str = Field(description="JSON pointer into the description.")
    first: Any
    second: Any


class TensorDifference(BaseModel):
    """One tensor of both networks of the same shape."""

    model_config = ConfigDict(frozen=True)

    name: str
    active: tuple[int, int] | None = Field(description="Active weights of the first and the second; null without mask.")
    overlap: float | None = Field(description="Weights active in both over those active in one; null without mask.")
    distance: float = Field(description="‖first − second‖ / ‖first‖, or ‖second‖ where the first is zero.")


class Differences(BaseModel):
    model_config = ConfigDict(frozen=True)

    fields: tuple[FieldDifference, ...]
    tensors: tuple[TensorDifference, ...] = Field(description="Parameters and buffers that both have, in their order.")
    other_tensors: tuple[str, ...] = Field(description="Names that one lacks or has in another shape.")
    overlap: float | None = Field(description="Of all masks that both have.")
    sparsity: tuple[float, float]
    validation_loss: tuple[float, float]
    metrics: tuple[Metrics | None, Metrics | None]


def compare(first: Checkpoint, second: Checkpoint) -> Differences:
    """Compare tensor by tensor; buffers and weights alike, in the precision that each file has."""
    shared = [
        name
        for name, weight in first.weights.items()
        if name in second.weights and second.weights[name].shape == weight.shape
    ]
    both = either = 0
    tensors = []
    for name in shared:
        active, overlap = None, None
        if name in first.masks and name in second.masks:
            masks = first.masks[name], second.masks[name]
            in_both, in_one = int((masks[0] & masks[1]).sum()), int((masks[0] | masks[1]).sum())
            both, either = both + in_both, either + in_one
            active, overlap = (int(masks[0].sum()), int(masks[1].sum())), _share(in_both, in_one)
        distance = _distance(first.weights[name], second.weights[name])
        tensors.append(TensorDifference(name=name, active=active, overlap=overlap, distance=distance))
    headers = first.header, second.header
    return Differences(
        fields=_fields(*headers),
        tensors=tuple(tensors),
        other_tensors=tuple(name for name in {**first.weights, **second.weights} if name not in shared),
        overlap=_share(both, either) if either else None,
        sparsity=(headers[0].sparsity, headers[1].sparsity),
        validation_loss=(headers[0].validation_loss, headers[1].validation_loss),
        metrics=(headers[0].metrics, headers[1].metrics),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _distance(first: Tensor, second: Tensor) -> float:
    """Exact zero for equal tensors; sums are in double precision."""
    wide = torch.complex128 if first.is_complex() else torch.float64
    one, other = first.to(wide), second.to(wide)
    apart, length = float((one - other).norm()), float(one.norm()) or float(other.norm())
    return apart / length if apart else 0.0


_COMPARED = ("spec", "columns", "frequency", "resampled_from", "precision", "dataset_sha256", "library_versions")


def _fields(first: CheckpointHeader, second: CheckpointHeader) -> tuple[FieldDifference, ...]:
    leaves = [_leaves(header.model_dump(mode="json", include=set(_COMPARED))) for header in (first, second)]
    return tuple(
        FieldDifference(pointer=pointer, first=leaves[0].get(pointer), second=leaves[1].get(pointer))
        for pointer in {**leaves[0], **leaves[1]}
        if leaves[0].get(pointer) != leaves[1].get(pointer)
    )


def _leaves(fields: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Return what is no object, by JSON pointer."""
    leaves: dict[str, Any] = {}
    for name, value in fields.items():
        pointer = f"{above}/{name}"
        leaves |= _leaves(value, pointer) if isinstance(value, dict) else {pointer: value}
    return leaves
