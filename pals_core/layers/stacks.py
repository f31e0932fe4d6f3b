"""Post-norm transformer encoder and decoder stacks (arXiv 1706.03762), each ending with a LayerNorm.

Shapes: B batch, L encoder steps, T decoder steps, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from pals_core.layers.attention import Destationarisation, MultiHeadAttention
from pals_core.layers.dropout import Dropout
from pals_core.layers.feed_forward import FeedForward


@dataclass(frozen=True)
class LayerSizes:
    """What the layers of a stack have in common."""

    d_model: int
    d_ff: int
    heads: int
    dropout: float


# Makes the attention of one layer, called with queries and keys. That of an encoder–decoder stack also takes
# causal=True and `last`, and says by `queries_are_independent` whether one query's output depends on the others.
AttentionFactory = Callable[[], nn.Module]


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each added to its input and normalised: [B, L, D] to [B, L, D].

    The attention is multi-head attention unless another one is given.
    """

    def __init__(self, sizes: LayerSizes, attention: AttentionFactory | None = None) -> None:
        super().__init__()
        self.attention = _attention(sizes, attention)
        self.attention_norm = nn.LayerNorm(sizes.d_model)
        self.feed_forward = FeedForward(sizes.d_model, sizes.d_ff, sizes.dropout)
        self.feed_forward_norm = nn.LayerNorm(sizes.d_model)
        self.dropout = Dropout(sizes.dropout)

    def forward(self, x: Tensor, destationarisation: Destationarisation | None = None) -> Tensor:
        attended = self.attention(x, x, **_given(destationarisation))
        x = self.attention_norm(self.dropout.added(x, attended))
        return self.feed_forward_norm(self.feed_forward(x))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Encoder layers and a final LayerNorm: [B, L, D] to [B, L, D]."""

    def __init__(self, layers: int, sizes: LayerSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(sizes) for _ in range(layers))
        self.norm = nn.LayerNorm(sizes.d_model)

    def forward(self, x: Tensor, destationarisation: Destationarisation | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, destationarisation)
        return self.norm(x)  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention, feed-forward, each added and normalised: [B, T, D] to [B, last, D].

    Steps before the `last` ones serve as keys only, which spares their arithmetic. De-stationary cross-attention uses τ
    and Δ, self-attention τ alone: Δ belongs to the encoder's steps. Both are multi-head attention unless others are
    given.
    """

    def __init__(
        self,
        sizes: LayerSizes,
        self_attention: AttentionFactory | None = None,
        cross_attention: AttentionFactory | None = None,
    ) -> None:
        super().__init__()
        self.self_attention = _attention(sizes, self_attention)
        self.self_attention_norm = nn.LayerNorm(sizes.d_model)
        self.cross_attention = _attention(sizes, cross_attention)
        self.cross_attention_norm = nn.LayerNorm(sizes.d_model)
        self.feed_forward = FeedForward(sizes.d_model, sizes.d_ff, sizes.dropout)
        self.feed_forward_norm = nn.LayerNorm(sizes.d_model)
        self.dropout = Dropout(sizes.dropout)

    def forward(
        self, x: Tensor, encoded: Tensor, last: int, destationarisation: Destationarisation | None = None
    ) -> Tensor:
        tau_alone = None if destationarisation is None else Destationarisation(destationarisation.tau)
        asking = last if self.cross_attention.queries_are_independent else x.shape[1]
        attended = self.self_attention(x, x, causal=True, last=asking, **_given(tau_alone))
        x = self.self_attention_norm(self.dropout.added(x[:, -asking:], attended))
        attended = self.cross_attention(x, encoded, last=last, **_given(destationarisation))
        x = self.cross_attention_norm(self.dropout.added(x[:, -last:], attended))
        return self.feed_forward_norm(self.feed_forward(x))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Decoder layers and a final LayerNorm: [B, T, D] and the encoder's [B, L, D] to the last steps, [B, last, D]."""

    def __init__(
        self,
        layers: int,
        sizes: LayerSizes,
        self_attention: AttentionFactory | None = None,
        cross_attention: AttentionFactory | None = None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(sizes, self_attention, cross_attention) for _ in range(layers))
        self.norm = nn.LayerNorm(sizes.d_model)

    def forward(
        self, x: Tensor, encoded: Tensor, last: int, destationarisation: Destationarisation | None = None
    ) -> Tensor:
        for place, layer in enumerate(self.layers, start=1):
            read = last if place == len(self.layers) else x.shape[1]
            x = layer(x, encoded, read, destationarisation)
        return self.norm(x)  # type: ignore[no-any-return]


def _attention(sizes: LayerSizes, make: AttentionFactory | None) -> nn.Module:
    return MultiHeadAttention(sizes.d_model, sizes.heads, sizes.dropout) if make is None else make()


def _given(destationarisation: Destationarisation | None) -> dict[str, Destationarisation]:
    """Only multi-head attention knows de-stationarisation, so others are not handed its absence."""
    return {} if destationarisation is None else {"destationarisation": destationarisation}
