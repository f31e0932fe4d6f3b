"""ProbSparse attention: only the most selective queries attend.

Shapes: B batch, Q query steps, K key steps, D width, h heads, d_k = D / h, U sampled keys, u kept queries.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ProbSparseAttention(nn.Module):
    """Attention of u of Q queries; the others get the mean of the values (arXiv 2012.07436, section 3.2).

    [B, Q, D] queries and [B, K, D] keys to [B, Q, D], or to [B, last, D], the output of the last queries alone, which
    depends on all of them. Kept are, of each sample and head, the queries with the largest
    max − sum/K of their scores against U sampled keys, one sample for the whole batch and all heads. When `causal`,
    Q = K, kept queries attend up to their own step and the others get the running sum of the values; the selection
    knows no mask. In training the keys are drawn at every call, in evaluation they are those of the buffer
    `sampled_keys`, drawn once with `generator` (of the CPU) and part of the state. Its weights have no dropout.

    `published_axis_order` reads the heads' output, laid out (h, Q, d_k), as if it were (Q, h, d_k).
    """

    queries_are_independent = False

    sampled_keys: Tensor  # [Q, U]

    def __init__(
        self,
        d_model: int,
        heads: int,
        *,
        query_len: int,
        key_len: int,
        factor: int,
        generator: torch.Generator,
        published_axis_order: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.kept_queries = _factor_log(factor, query_len)
        self.published_axis_order = published_axis_order
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)
        sample = torch.randint(key_len, (query_len, _factor_log(factor, key_len)), generator=generator)
        self.register_buffer("sampled_keys", sample)
        self.index_bounds = {"sampled_keys": key_len}

    def forward(self, queries: Tensor, keys: Tensor, *, causal: bool = False, last: int | None = None) -> Tensor:
        query, key, value = (
            projection(source).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, h, steps, d_k]
            for projection, source in ((self.query, queries), (self.key, keys), (self.value, keys))
        )
        query = query / math.sqrt(query.shape[-1])
        kept = self._most_selective(query, key)  # [B, h, u]
        rows = kept.unsqueeze(-1)
        scores = query.gather(2, rows.expand(-1, -1, -1, query.shape[-1])) @ key.transpose(-1, -2)  # [B, h, u, K]
        if causal:
            later = torch.arange(key.shape[2], device=key.device) > rows
            scores = scores.masked_fill(later, -math.inf)
            context = value.cumsum(dim=2)
        else:
            context = value.mean(dim=2, keepdim=True).expand_as(query)
        attended = scores.softmax(dim=-1).to(value.dtype) @ value
        context = context.to(value.dtype).scatter(2, rows.expand_as(attended), attended)  # [B, h, Q, d_k]
        if not self.published_axis_order:
            context = context.transpose(1, 2)
        merged = context.reshape(*queries.shape[:2], -1)
        return self.output(merged if last is None else merged[:, -last:].contiguous())  # type: ignore[no-any-return]

    @torch.no_grad()
    def _most_selective(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the steps of the kept queries, [B, h, u]."""
        sample = self.sampled_keys
        if self.training:
            sample = torch.randint(key.shape[2], sample.shape, device=sample.device)
        # One product with all keys is faster than gathering U of them for every query.
        sampled = (query @ key.transpose(-1, -2)).gather(-1, sample.expand(*query.shape[:2], -1, -1))
        selectivity = sampled.amax(dim=-1) - sampled.sum(dim=-1) / key.shape[2]
        return selectivity.topk(self.kept_queries, dim=-1, sorted=False).indices


def _factor_log(factor: int, length: int) -> int:
    """factor·⌈ln length⌉, at least 1 and at most `length`."""
    return max(1, min(length, factor * math.ceil(math.log(length))))
