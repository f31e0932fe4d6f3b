"""Dropout at a fraction of the usual cost on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 2**16


class Dropout(nn.Module):
    """Zeroes the share `p` of elements in training and scales the others by 1/(1 − p) (arXiv 1207.0580).

    On a CPU it takes 16 random bits for an element, four elements from one draw, instead of a draw of a real number for
    each, and keeps a byte of it for the backward pass instead of four. So `p` is rounded to 1/65536, and the scale is
    that of the rounded share: the expectation is exact.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        return _Dropped.apply(x, self.p)  # type: ignore[no-untyped-call, no-any-return]

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        dropped_levels = min(round(p * LEVELS), LEVELS - 1)
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        levels = draws.view(torch.int16)[: x.numel()].view(x.shape)
        # As whole numbers of one byte: a product with them is vectorised, one with booleans is not.
        kept = (levels >= dropped_levels - LEVELS // 2).view(torch.int8)
        ctx.save_for_backward(kept)
        ctx.scale = LEVELS / (LEVELS - dropped_levels)
        return (x * kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (gradients[0] * kept).mul_(ctx.scale), None
