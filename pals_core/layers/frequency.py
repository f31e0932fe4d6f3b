"""Fourier blocks: attention among a few kept frequencies.

Shapes: B batch, L query steps, S key steps, D width, h heads, d_k = D / h, M kept frequencies (N of the keys).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pals_core.layers.spectrum import signal, spectrum


@dataclass(frozen=True)
class FrequencyChoice:
    """Which frequencies of a sequence are kept: `modes` of them at random, drawn from `generator`, or the lowest."""

    modes: int
    generator: torch.Generator | None  # of the CPU; None: the lowest

    def of(self, steps: int) -> Tensor:
        """Return the kept frequencies in ascending order, at most ⌊steps/2⌋, the highest never among them."""
        available = steps // 2
        kept = min(self.modes, available)
        if self.generator is None:
            return torch.tensor(range(kept))
        drawn = torch.randperm(available, generator=self.generator, device="cpu")[:kept].sort().values
        return drawn.to(torch.get_default_device())


@dataclass(frozen=True)
class FourierLayout:
    """Width and heads of a Fourier block, and the order in which its output's axes are read.

    `published_axis_order` reads the output, laid out (h, d_k, L), as if it were (L, h, d_k).
    """

    d_model: int
    heads: int
    published_axis_order: bool = False

    def split(self, x: Tensor) -> Tensor:
        """[B, L, D] to [B, h, d_k, L]."""
        return x.view(*x.shape[:2], self.heads, -1).permute(0, 2, 3, 1)

    def merge(self, x: Tensor) -> Tensor:
        """[B, h, d_k, L] to [B, L, D]."""
        if self.published_axis_order:
            return x.reshape(x.shape[0], x.shape[-1], self.d_model)
        return x.flatten(1, 2).transpose(1, 2).contiguous()

    def initial_weight(self, frequencies: Tensor) -> nn.Parameter:
        """Complex [h, d_k, d_k, M], real and imaginary parts uniform in [0, 1)/D²."""
        width = self.d_model // self.heads
        weight = torch.empty(self.heads, width, width, len(frequencies), dtype=torch.complex64)
        torch.view_as_real(weight).uniform_(0, 1 / self.d_model**2)
        return nn.Parameter(weight)


class FourierBlock(nn.Module):
    """Multiplies each kept frequency by a matrix per head, drops the others: [B, L, D] to [B, L, D].

    arXiv 2201.12740, equation 4. Has no projections: see `FourierSelfAttention`. The buffer `frequencies` is part of
    the state.
    """

    frequencies: Tensor  # [M]

    def __init__(self, layout: FourierLayout, steps: int, choice: FrequencyChoice) -> None:
        super().__init__()
        self.layout = layout
        self.register_buffer("frequencies", choice.of(steps))
        self.index_bounds = {"frequencies": steps // 2}
        self.weight = layout.initial_weight(self.frequencies)

    def forward(self, queries: Tensor) -> Tensor:
        query = spectrum(self.layout.split(queries))  # [B, h, d_k, L//2 + 1]
        mixed = torch.einsum("bhim,hiom->bhom", query.index_select(-1, self.frequencies), self.weight)
        placed = torch.zeros_like(query).index_copy(-1, self.frequencies, mixed)
        return self.layout.merge(signal(placed, queries.shape[1]))


class FourierCrossBlock(nn.Module):
    """Attention of the queries' kept frequencies to the keys': [B, L, D] and [B, S, D] to [B, L, D].

    arXiv 2201.12740, equations 6 and 7, with tanh for the activation; keys serve as values. Has no projections: see
    `FourierCrossAttention`. The buffers of frequencies are part of the state.
    """

    query_frequencies: Tensor  # [M]
    key_frequencies: Tensor  # [N]

    def __init__(self, layout: FourierLayout, query_steps: int, key_steps: int, choice: FrequencyChoice) -> None:
        super().__init__()
        self.layout = layout
        self.register_buffer("query_frequencies", choice.of(query_steps))
        self.register_buffer("key_frequencies", choice.of(key_steps))
        self.index_bounds = {"query_frequencies": query_steps // 2, "key_frequencies": key_steps // 2}
        self.weight = layout.initial_weight(self.query_frequencies)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        everything = spectrum(self.layout.split(queries))  # [B, h, d_k, L//2 + 1]
        query = everything.index_select(-1, self.query_frequencies)
        key = spectrum(self.layout.split(keys)).index_select(-1, self.key_frequencies)
        attention = torch.einsum("bhem,bhen->bhmn", query, key).tanh()
        attended = torch.einsum("bhmn,bhen->bhem", attention, key)
        mixed = torch.einsum("bhim,hiom->bhom", attended, self.weight) / self.layout.d_model**2
        placed = torch.zeros_like(everything).index_copy(-1, self.query_frequencies, mixed)
        return self.layout.merge(signal(placed, queries.shape[1]))


class FourierSelfAttention(nn.Module):
    """A Fourier block, which layers may share, between projections with bias of the layer's own."""

    def __init__(self, d_model: int, block: FourierBlock) -> None:
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.block = block
        self.output = nn.Linear(d_model, d_model)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:  # noqa: ARG002
        return self.output(self.block(self.query(queries)))  # type: ignore[no-any-return]


class FourierCrossAttention(nn.Module):
    """A Fourier cross block, which layers may share, between projections with bias of the layer's own."""

    def __init__(self, d_model: int, block: FourierCrossBlock) -> None:
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.block = block
        self.output = nn.Linear(d_model, d_model)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        return self.output(self.block(self.query(queries), self.key(keys)))  # type: ignore[no-any-return]
