"""Informer's encoder, whose layers halve the sequence they pass on.

Shapes: B batch, L encoder steps, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from pals_core.layers.stacks import AttentionFactory, EncoderLayer, LayerSizes


class Distilling(nn.Module):
    """Circular convolution, BatchNorm, ELU, max-pooling: [B, L, D] to [B, ⌊(L+1)/2⌋+1, D].

    arXiv 2012.07436, equation 5, with the padding of 2 of the authors' program. L is at least 2.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(d_model, d_model, kernel_size=3, padding=2, padding_mode="circular")
        self.norm = nn.BatchNorm1d(d_model)

    def forward(self, x: Tensor) -> Tensor:
        x = F.elu(self.norm(self.convolution(x.transpose(1, 2))))
        return F.max_pool1d(x, kernel_size=3, stride=2, padding=1).transpose(1, 2).contiguous()


def distilled_length(length: int) -> int:
    """Return the steps that `Distilling` leaves of `length`."""
    return (length + 1) // 2 + 1


class DistillingEncoder(nn.Module):
    """An encoder layer per attention, `Distilling` after each but the last, and a final LayerNorm.

    [B, L, D] to [B, L', D]; without `distil` L' = L.
    """

    def __init__(self, attentions: Sequence[AttentionFactory], sizes: LayerSizes, *, distil: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(sizes, attention) for attention in attentions)
        self.distilling = nn.ModuleList(Distilling(sizes.d_model) for _ in range((len(attentions) - 1) * distil))
        self.norm = nn.LayerNorm(sizes.d_model)

    def forward(self, x: Tensor) -> Tensor:
        for place, layer in enumerate(self.layers):
            x = layer(x)
            if place < len(self.distilling):
                x = self.distilling[place](x)
        return self.norm(x)  # type: ignore[no-any-return]
