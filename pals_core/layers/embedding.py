"""Embeddings of a window's values and calendar features.

Shapes: B batch, T time steps, C columns, F calendar features, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

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
        self.value = nn.Conv1d(columns, d_model, kernel_size=3, padding=1, padding_mode="circular", bias=False)
        nn.init.kaiming_normal_(self.value.weight, mode="fan_in", nonlinearity="leaky_relu")
        self.calendar = nn.Linear(calendar_features, d_model, bias=False) if calendar_features else None
        position = None if length is None else sinusoidal_position(length, d_model)
        self.register_buffer("position", position, persistent=False)
        self.dropout = Dropout(dropout)

    def forward(self, values: Tensor, marks: Tensor) -> Tensor:
        # Rows one after the other, here and before other linear layers as wide as the network. Where they are not, one
        # that needs no gradient multiplies each window by a copy of its weights: evaluations in bfloat16 took half as
        # long again.
        embedded: Tensor = self.value(values.transpose(1, 2)).transpose(1, 2).contiguous()
        if self.position is not None:
            embedded = embedded + self.position
        if self.calendar is not None:
            embedded = embedded + self.calendar(marks)
        return self.dropout(embedded)  # type: ignore[no-any-return]


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
