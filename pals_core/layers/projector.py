"""The projectors that learn τ and Δ of de-stationary attention.

Shapes: B batch, L input steps, C columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Projector(nn.Module):
    """From a raw window, [B, L, C], and one of its statistics, [B, 1, C], to [B, outputs] (arXiv 2205.14415, eq. 5).

    A circular convolution whose channels are the L steps slides over the columns; its C values and the C statistics go
    through Linear and ReLU per hidden size and a last Linear without bias.
    """

    def __init__(self, input_len: int, columns: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(input_len, 1, kernel_size=3, padding=1, padding_mode="circular", bias=False)
        self.hidden = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise((2 * columns, *hidden)))
        self.output = nn.Linear(hidden[-1], outputs, bias=False)

    def forward(self, window: Tensor, statistic: Tensor) -> Tensor:
        x = torch.cat((self.convolution(window), statistic), dim=1).flatten(1)
        for layer in self.hidden:
            x = torch.relu(layer(x))
        return self.output(x)  # type: ignore[no-any-return]
