"""Auto-correlation: attention to the time delays at which keys resemble queries.

Shapes: B batch, L query steps, S key steps, D width, k delays.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pals_core.layers.spectrum import signal, spectrum


class AutoCorrelation(nn.Module):
    """Sum of the values shifted by k delays, weighted by the correlation there (arXiv 2106.13008, section 3.2).

    [B, L, D] queries and [B, S, D] keys to [B, L, D]; keys and values are zero-padded at the end or cut to L steps. The
    correlation is the mean over all heads and channels, so heads make no difference. In training the delays are those
    of largest correlation in the mean of the batch, in evaluation each sample has its own; the softmax runs over each
    sample's k correlations.
    """

    def __init__(self, d_model: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        length = queries.shape[1]
        query, key, value = (
            spectrum(projection(source).transpose(1, 2), length)  # [B, D, L//2 + 1]
            for projection, source in ((self.query, queries), (self.key, keys), (self.value, keys))
        )
        # The mean of the transforms is the transform of the mean.
        correlation = signal((query * key.conj()).mean(dim=1), length)  # [B, L]
        weight_at = self.weight_at_delays(correlation)
        shifted = signal(value * spectrum(weight_at).conj().unsqueeze(1), length)  # Σ_d weight(d)·V(t + d)
        return self.output(shifted.transpose(1, 2).contiguous())  # type: ignore[no-any-return]

    def weight_at_delays(self, correlation: Tensor) -> Tensor:
        """Return the softmax of the k largest correlations at their delays, [B, L], zero elsewhere."""
        length = correlation.shape[1]
        count = max(1, min(length, int(self.factor * math.log(length))))
        deciding = correlation.detach().mean(dim=0, keepdim=True) if self.training else correlation.detach()
        delays = deciding.topk(count, dim=1).indices.expand(correlation.shape[0], -1)
        weights = correlation.gather(1, delays).softmax(dim=1)
        return torch.zeros_like(correlation).scatter(1, delays, weights)
