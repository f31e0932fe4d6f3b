"""Dropout at a fraction of the usual cost on a CPU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Up to this share it is cheaper to draw which elements are dropped than to draw for each whether it is.
MOST_DRAWN_ONE_BY_ONE = 0.5
# Elements whose places are drawn together: few enough to stay in the nearest cache while they are zeroed.
_BLOCK = 2**13


class Dropout(nn.Module):
    """Zeroes each element with probability `p` in training and scales the others by 1/(1 − p) (arXiv 1207.0580).

    On a CPU it draws places instead of a number for each element: in each block of elements a Poisson number of them,
    −ln(1 − p) an element in the mean, each anywhere in the block and some twice. Then an element is never drawn with
    probability exp(ln(1 − p)) = 1 − p, and independently of the others, as counts of a Poisson process are. At p = 0.05
    that is one draw for 19 elements, and nothing to keep for the backward pass but those places.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.draws_places(x):
            return _Dropped.apply(x, self.p)  # type: ignore[no-untyped-call, no-any-return]
        return F.dropout(x, self.p) if self.training and self.p > 0 else x

    def draws_places(self, x: Tensor) -> bool:
        """Return whether places of `x` are drawn: in training, on a CPU, for a share that is not too large."""
        return self.training and 0 < self.p <= MOST_DRAWN_ONE_BY_ONE and x.device.type == "cpu"

    def added(self, x: Tensor, addend: Tensor, scale: float = 1.0) -> Tensor:
        """Return x + scale · dropout(addend), both of one shape; where places are drawn, in one pass but for these."""
        if self.draws_places(addend):
            return _Added.apply(x, addend, self.p, scale)  # type: ignore[no-untyped-call, no-any-return]
        return torch.add(x, self(addend), alpha=scale)

    def of_gelu(self, x: Tensor) -> tuple[Tensor, float]:
        """Return exact gelu of `x`, elements dropped, and what is left to multiply it by.

        Where places are drawn that factor is not multiplied in, but left to a later product, which may be smaller.
        """
        if self.draws_places(x):
            return _DroppedGelu.apply(x, self.p), 1 / (1 - self.p)  # type: ignore[no-untyped-call]
        return self(F.gelu(x)), 1.0

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        places = _drawn(x.numel(), -math.log1p(-p))
        ctx.save_for_backward(places)
        ctx.scale = 1 / (1 - p)
        return _without(x * ctx.scale, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return _without(gradients[0] * ctx.scale, places), None


class _Added(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, addend: Tensor, p: float, scale: float) -> Tensor:
        places = _drawn(addend.numel(), -math.log1p(-p))
        ctx.save_for_backward(places)
        ctx.scale = scale / (1 - p)
        summed = torch.add(x, addend, alpha=ctx.scale).contiguous()
        summed.view(-1)[places] = x.take(places).to(summed.dtype)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradients[0], _without(gradients[0] * ctx.scale, places), None, None


class _DroppedGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        places = _drawn(x.numel(), -math.log1p(-p))
        ctx.save_for_backward(x, places)
        return _without(F.gelu(x), places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, places = ctx.saved_tensors
        return _without(torch.ops.aten.gelu_backward(gradients[0], x), places), None


def _drawn(elements: int, mean: float) -> Tensor:
    """Draw places among so many elements, each expected `mean` times, block after block."""
    block = min(_BLOCK, 2 ** max(elements - 1, 0).bit_length())
    starts = np.arange(0, elements, block)
    counts = torch.poisson(torch.full((len(starts),), block * mean, dtype=torch.float64)).numpy().astype(np.int64)
    places = np.repeat(starts, counts)
    # Sixteen bits are enough for a place in a block: four from each number of 64.
    numbers = torch.empty(-(-len(places) // 4), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    places += numbers.numpy().view(np.uint16)[: len(places)] & np.uint16(block - 1)
    # Of a last block that is not whole, the places that are there are drawn as those of a whole one.
    return torch.from_numpy(places if elements % block == 0 else places[places < elements])


def _without(fresh: Tensor, places: Tensor) -> Tensor:
    """`fresh`, which nobody else reads, with 0 at those places of it in row-major order."""
    fresh = fresh.contiguous()
    fresh.view(-1)[places] = 0
    return fresh
