"""Embeddings of a window's values and calendar features.

Shapes: B batch, T time steps, C columns, F calendar features, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pals_core.layers.dropout import Dropout


class DataEmbedding(nn.Module):
    """Circular convolution of the values + linear map of the calendar features + sinusoidal position, then dropout.

    [B, T, C] and [B, T, F] to [B, T, D]. Without calendar features (yearly data) there is no calendar layer, without a
    `length` no position. Convolution and calendar layer have no bias (Informer's embedding, arXiv 2012.07436,
    appendix B).
    """

    position: Tensor | None

    def __init__(self, columns: int, calendar_features: int, d_model: int, length: int | None, dropout: float) -> None:
        super().__init__()
        self.value = CircularConvolution(columns, d_model)
        nn.init.kaiming_normal_(self.value.weight, mode="fan_in", nonlinearity="leaky_relu")
        self.calendar = nn.Linear(calendar_features, d_model, bias=False) if calendar_features else None
        position = None if length is None else sinusoidal_position(length, d_model)
        self.register_buffer("position", position, persistent=False)
        self.dropout = Dropout(dropout)

    def forward(self, values: Tensor, marks: Tensor) -> Tensor:
        embedded: Tensor = self.value(values)
        if self.position is not None:
            # In bfloat16 too, or all that is added to it, up to the last layer, would be in single precision again.
            embedded = embedded + self.position.to(embedded.dtype)
        if self.calendar is not None:
            embedded = embedded + self.calendar(marks)
        return self.dropout(embedded)  # type: ignore[no-any-return]


class CircularConvolution(nn.Conv1d):
    """Convolution over three steps, the first and the last being neighbours, without bias: [B, T, C] to [B, T, D].

    As one matrix product over all steps, which for few columns is faster than a convolution and its two transpositions.
    """

    def __init__(self, columns: int, d_model: int) -> None:
        super().__init__(columns, d_model, kernel_size=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        around, steps = torch.cat((x[:, -1:], x, x[:, :1]), dim=1), x.shape[1]
        neighbours = torch.stack([around[:, first : first + steps] for first in range(3)], dim=3)  # [B, T, C, 3]
        return F.linear(neighbours.flatten(2), self.weight.flatten(1))


def sinusoidal_position(length: int, d_model: int) -> Tensor:
    """Return the fixed position code, [length, D]: base 10000, sines at even and cosines at odd channels."""
    if torch.get_default_device().type == "meta":  # there torch computes by way of its compiler, a slow import
        return torch.empty(length, d_model)
    steps = torch.arange(length, dtype=torch.float32).unsqueeze(1)
    rates = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float32) * (-math.log(10_000.0) / d_model))
    code = torch.zeros(length, d_model)
    code[:, 0::2] = torch.sin(steps * rates)
    code[:, 1::2] = torch.cos(steps * rates)
    return code
