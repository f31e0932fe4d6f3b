"""Autoformer's encoder and decoder stacks, which part the trend from the season after every step.

Shapes: B batch, L encoder steps, T decoder steps, C columns, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from pals_core.layers.decomposition import decompose
from pals_core.layers.dropout import Dropout
from pals_core.layers.feed_forward import FeedForward
from pals_core.layers.stacks import AttentionFactory, LayerSizes


class SeasonalNorm(nn.Module):
    """LayerNorm minus its mean over time: [B, L, D] to [B, L, D]."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return x - x.mean(dim=1, keepdim=True)


class SeasonalEncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each added to its input, whose trend is dropped: [B, L, D] to [B, L, D]."""

    def __init__(self, sizes: LayerSizes, moving_avg: int, attention: AttentionFactory) -> None:
        super().__init__()
        self.moving_avg = moving_avg
        self.attention = attention()
        self.feed_forward = FeedForward(sizes.d_model, sizes.d_ff, sizes.dropout, bias=False)
        self.dropout = Dropout(sizes.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = decompose(self.dropout.added(x, self.attention(x, x)), self.moving_avg)
        x, _ = decompose(self.feed_forward(x), self.moving_avg)
        return x


class SeasonalEncoder(nn.Module):
    """Seasonal encoder layers and a final `SeasonalNorm`: [B, L, D] to [B, L, D]."""

    def __init__(self, layers: int, sizes: LayerSizes, moving_avg: int, attention: AttentionFactory) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SeasonalEncoderLayer(sizes, moving_avg, attention) for _ in range(layers))
        self.norm = SeasonalNorm(sizes.d_model)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)  # type: ignore[no-any-return]


class SeasonalDecoderLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward, each added to its input, whose trend is taken out.

    [B, T, D] and the encoder's [B, L, D] to the season, [B, T, D], and the three trends' sum as columns, [B, T, C].
    """

    def __init__(
        self,
        sizes: LayerSizes,
        moving_avg: int,
        columns: int,
        self_attention: AttentionFactory,
        cross_attention: AttentionFactory,
    ) -> None:
        super().__init__()
        self.moving_avg = moving_avg
        self.self_attention = self_attention()
        self.cross_attention = cross_attention()
        self.feed_forward = FeedForward(sizes.d_model, sizes.d_ff, sizes.dropout, bias=False)
        self.trend = nn.Conv1d(sizes.d_model, columns, kernel_size=3, padding=1, padding_mode="circular", bias=False)
        self.dropout = Dropout(sizes.dropout)

    def forward(self, x: Tensor, encoded: Tensor) -> tuple[Tensor, Tensor]:
        x, first = decompose(self.dropout.added(x, self.self_attention(x, x)), self.moving_avg)
        x, second = decompose(self.dropout.added(x, self.cross_attention(x, encoded)), self.moving_avg)
        x, third = decompose(self.feed_forward(x), self.moving_avg)
        trend: Tensor = self.trend((first + second + third).transpose(1, 2))
        return x, trend.transpose(1, 2)


class SeasonalDecoder(nn.Module):
    """Seasonal decoder layers and a final `SeasonalNorm`.

    [B, T, D], the encoder's [B, L, D] and a first trend, [B, T, C], to the season, [B, T, D], and the trend, [B, T, C],
    to which each layer adds its own.
    """

    def __init__(
        self,
        layers: int,
        sizes: LayerSizes,
        moving_avg: int,
        columns: int,
        self_attention: AttentionFactory,
        cross_attention: AttentionFactory,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            SeasonalDecoderLayer(sizes, moving_avg, columns, self_attention, cross_attention) for _ in range(layers)
        )
        self.norm = SeasonalNorm(sizes.d_model)

    def forward(self, x: Tensor, encoded: Tensor, trend: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            x, of_layer = layer(x, encoded)
            trend = trend + of_layer
        return self.norm(x), trend
