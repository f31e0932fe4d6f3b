"""A masked tensor as its active values and one bit per weight."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def pack(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the active values in row-major order, and the mask's bits in bytes, the first weight in the lowest bit."""
    bits = np.packbits(mask.cpu().numpy().reshape(-1), bitorder="little")
    return weight[mask], torch.from_numpy(bits)


def unpack(values: Tensor, bitmask: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the dense weight, zero where inactive, and its mask; the arguments must agree in their counts."""
    mask = torch.zeros(shape, dtype=torch.bool)
    bits = np.unpackbits(bitmask.numpy(), count=mask.numel(), bitorder="little")
    mask.view(-1).copy_(torch.from_numpy(bits))
    weight = torch.zeros(shape, dtype=values.dtype)
    weight[mask] = values
    return weight, mask


def count_bits(bitmask: Tensor) -> int:
    return int(np.bitwise_count(bitmask.numpy()).sum(dtype=np.int64))
