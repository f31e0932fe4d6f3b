"""Splitting a series into its trend and what remains."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def decompose(x: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Return (remainder, trend) of [B, L, C], each of that shape; they add up to `x`.

    The trend is the moving average of `kernel` steps, an odd number, the first and last value being repeated
    (kernel − 1)/2 times beyond the ends (arXiv 2106.13008, equation 1). Raises ValueError for an even kernel.
    """
    if kernel % 2 == 0:
        raise ValueError(f"a moving average of {kernel} steps has no middle; give an odd number")
    margin = (kernel - 1) // 2
    # Not by padding with "replicate", whose gradient on a GPU does not repeat itself.
    first, last = x[:, :1].expand(-1, margin, -1), x[:, -1:].expand(-1, margin, -1)
    padded = torch.cat((first, x, last), dim=1).transpose(1, 2)
    trend = F.avg_pool1d(padded, kernel, stride=1).transpose(1, 2)
    return x - trend, trend
