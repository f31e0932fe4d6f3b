"""Linear maps over time, shared by the columns or one for each.

Shapes: B batch, C columns.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def linear_over_time(columns: int, inputs: int, outputs: int, *, per_column: bool) -> nn.Module:
    """Return a Linear(inputs → outputs) with bias on [B, C, inputs], shared by the columns or one for each."""
    return PerColumnLinear(columns, inputs, outputs) if per_column else nn.Linear(inputs, outputs)


class PerColumnLinear(nn.Module):
    """One Linear(inputs → outputs) with bias for each column: [B, C, inputs] to [B, C, outputs].

    Weight [C, outputs, inputs] and bias [C, outputs] start as `nn.Linear`'s do.
    """

    def __init__(self, columns: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(columns, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(columns, outputs))
        bound = 1 / math.sqrt(inputs)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bci,coi->bco", x, self.weight) + self.bias
