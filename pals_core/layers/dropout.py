"""Dropout at a fraction of the usual cost on a CPU."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Up to this share it is cheaper to draw which elements are dropped than to draw for each whether it is.
MOST_DRAWN_ONE_BY_ONE = 0.5


class Dropout(nn.Module):
    """Zeroes each element with probability `p` in training and scales the others by 1/(1 − p) (arXiv 1207.0580).

    On a CPU it draws places instead of a number for each element: a Poisson number of them, −ln(1 − p) an element in
    the mean, each anywhere and some twice. Then an element is never drawn with probability exp(ln(1 − p)) = 1 − p,
    and independently of the others, as counts of a Poisson process are. At p = 0.05 that is one draw for 19 elements,
    and nothing to keep for the backward pass but those places.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or self.p > MOST_DRAWN_ONE_BY_ONE:
            return F.dropout(x, self.p)
        return _Dropped.apply(x, self.p)  # type: ignore[no-untyped-call, no-any-return]

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        mean = torch.tensor(-x.numel() * math.log1p(-p), dtype=torch.float64)
        places = torch.randint(max(x.numel(), 1), (int(torch.poisson(mean)),))
        ctx.save_for_backward(places)
        ctx.scale = 1 / (1 - p)
        return _without(x, places, ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return _without(gradients[0], places, ctx.scale), None


def _without(x: Tensor, places: Tensor, scale: float) -> Tensor:
    """`x` times `scale`, and 0 at those places of it in row-major order."""
    scaled = (x * scale).contiguous()
    scaled.view(-1).index_fill_(0, places, 0)
    return scaled
