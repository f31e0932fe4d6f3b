"""Standardising a window by its own statistics (arXiv 2205.14415, section 3.1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

EPSILON = 1e-5


class Standardised(NamedTuple):
    """A window at zero mean and unit variance over time, and what takes it back."""

    values: Tensor  # [B, L, C]
    mean: Tensor  # [B, 1, C]
    std: Tensor  # [B, 1, C], √(population variance + 1e-5)


def standardise(x: Tensor) -> Standardised:
    """Standardise each sample and column of [B, L, C] over its L steps."""
    mean = x.mean(dim=1, keepdim=True)
    centred = x - mean
    std = torch.sqrt(centred.square().mean(dim=1, keepdim=True) + EPSILON)
    return Standardised(centred / std, mean, std)
