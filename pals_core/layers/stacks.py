"""Post-norm transformer encoder and decoder stacks (arXiv 1706.03762), each ending with a LayerNorm.

Shapes: B batch, L encoder steps, T decoder steps, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from pals_core.layers.attention import Destationarisation, MultiHeadAttention
from pals_core.layers.feed_forward import FeedForward


@dataclass(frozen=True)
class LayerSizes:
    """What the layers of a stack have in common."""

    d_model: int
    d_ff: int
    heads: int
    dropout: float


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each added to its input and normalised: [B, L, D] to [B, L, D]."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(sizes.d_model, sizes.heads, sizes.dropout)
        self.attention_norm = nn.LayerNorm(sizes.d_model)
        self.feed_forward = FeedForward(sizes.d_model, sizes.d_ff, sizes.dropout)
        self.feed_forward_norm = nn.LayerNorm(sizes.d_model)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor, destationarisation: Destationarisation | None = None) -> Tensor:
        attended = self.attention(x, x, destationarisation=destationarisation)
        x = self.attention_norm(x + self.dropout(attended))
        return self.feed_forward_norm(x + self.feed_forward(x))  # type: ignore[no-any-return]


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
    """Causal self-attention, cross-attention, feed-forward, each added and normalised: [B, T, D] to [B, T, D].

    De-stationary cross-attention uses τ and Δ, self-attention τ alone: Δ belongs to the encoder's steps.
    """

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(sizes.d_model, sizes.heads, sizes.dropout)
        self.self_attention_norm = nn.LayerNorm(sizes.d_model)
        self.cross_attention = MultiHeadAttention(sizes.d_model, sizes.heads, sizes.dropout)
        self.cross_attention_norm = nn.LayerNorm(sizes.d_model)
        self.feed_forward = FeedForward(sizes.d_model, sizes.d_ff, sizes.dropout)
        self.feed_forward_norm = nn.LayerNorm(sizes.d_model)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor, encoded: Tensor, destationarisation: Destationarisation | None = None) -> Tensor:
        tau_alone = None if destationarisation is None else Destationarisation(destationarisation.tau)
        attended = self.self_attention(x, x, causal=True, destationarisation=tau_alone)
        x = self.self_attention_norm(x + self.dropout(attended))
        attended = self.cross_attention(x, encoded, destationarisation=destationarisation)
        x = self.cross_attention_norm(x + self.dropout(attended))
        return self.feed_forward_norm(x + self.feed_forward(x))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Decoder layers and a final LayerNorm: [B, T, D] and the encoder's [B, L, D] to [B, T, D]."""

    def __init__(self, layers: int, sizes: LayerSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(sizes) for _ in range(layers))
        self.norm = nn.LayerNorm(sizes.d_model)

    def forward(self, x: Tensor, encoded: Tensor, destationarisation: Destationarisation | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, encoded, destationarisation)
        return self.norm(x)  # type: ignore[no-any-return]
