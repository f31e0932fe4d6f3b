"""Multi-head attention, plain and de-stationary.

Shapes: B batch, Q query steps, K key steps, D width, h heads, d_k = D / h.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pals_core.layers.dropout import Dropout


@dataclass(frozen=True)
class Destationarisation:
    """What standardising a window took away and attention gets back: τ, and Δ where it is used."""

    tau: Tensor  # [B], positive
    delta: Tensor | None = None  # [B, K]


class MultiHeadAttention(nn.Module):
    """Projections with bias around softmax(QKᵀ/√d_k)·V, with dropout on the softmax weights.

    [B, Q, D] queries and [B, K, D] keys to [B, Q, D], or to [B, last, D], the output of the last queries alone. With a
    `Destationarisation` it is softmax((τ·QKᵀ + Δ)/√d_k)·V (arXiv 2205.14415, equation 6), Δ being the same for all
    queries and heads. `causal` hides later keys; then Q = K.
    """

    queries_are_independent = True

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = Dropout(dropout)
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        *,
        causal: bool = False,
        last: int | None = None,
        destationarisation: Destationarisation | None = None,
    ) -> Tensor:
        if last is not None:
            # Rows one after the other, here and before other linear layers as wide as the network. Where they are not,
            # one that needs no gradient multiplies each window by a copy of its weights: evaluations in bfloat16 took
            # half as long again.
            queries = queries[:, -last:].contiguous()
        query, key, value = self.query(queries), self.key(keys), self.value(keys)
        scale = 1 / math.sqrt(query.shape[2] // self.heads)
        bias: Tensor | None = None  # broadcastable to [B·h, Q, K]
        if destationarisation is None:
            query = query * scale
        else:
            # τ is one number per sample, so it may scale the queries, which are smaller than the scores.
            query = query * (destationarisation.tau * scale)[:, None, None]
            if destationarisation.delta is not None:
                bias = (destationarisation.delta * scale).repeat_interleave(self.heads, dim=0).unsqueeze(1)
        if causal:
            hidden = torch.full((queries.shape[1], keys.shape[1]), -math.inf, device=query.device, dtype=query.dtype)
            hidden = hidden.triu(diagonal=1 + keys.shape[1] - queries.shape[1]).unsqueeze(0)
            bias = hidden if bias is None else bias + hidden

        query, key, value = (self._split(projected) for projected in (query, key, value))
        if bias is None:
            scores = torch.bmm(query, key.transpose(1, 2))
        else:
            scores = torch.baddbmm(bias.to(query.dtype), query, key.transpose(1, 2))
        weights = self.dropout(scores.softmax(dim=-1))
        mixed = torch.bmm(weights.to(value.dtype), value)  # [B·h, Q, d_k]
        mixed = mixed.view(-1, self.heads, *mixed.shape[1:]).transpose(1, 2).flatten(2)
        return self.output(mixed)  # type: ignore[no-any-return]

    def _split(self, projected: Tensor) -> Tensor:
        """[B, T, D] to [B·h, T, d_k]."""
        batch, steps, width = projected.shape
        return projected.view(batch, steps, self.heads, width // self.heads).transpose(1, 2).flatten(0, 1)
