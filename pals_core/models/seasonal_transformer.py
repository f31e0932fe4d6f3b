"""The skeleton of Autoformer and FEDformer: the season goes through an encoder–decoder, the trend beside it.

Shapes: B batch, L input steps, H horizon, C columns, F calendar features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pals_core.data.lengths import WindowLengths
from pals_core.layers.decomposition import decompose
from pals_core.layers.embedding import DataEmbedding
from pals_core.layers.seasonal_stacks import SeasonalDecoder, SeasonalEncoder
from pals_core.layers.stacks import AttentionFactory, LayerSizes
from pals_core.spec import AutoformerSpec, FEDformerSpec


class SeasonalTransformer(nn.Module):
    """Encoder–decoder with decomposition inside (arXiv 2106.13008, section 3.1) around any attention.

    The decoder is seeded from the input's season and trend, so `x_dec` is not read.
    """

    def __init__(
        self,
        spec: AutoformerSpec | FEDformerSpec,
        lengths: WindowLengths,
        columns: int,
        calendar_features: int,
        *,
        encoder_attention: AttentionFactory,
        decoder_attention: AttentionFactory,
        cross_attention: AttentionFactory,
    ) -> None:
        super().__init__()
        self.lengths = lengths
        self.moving_avg = spec.moving_avg
        sizes = LayerSizes(spec.d_model, spec.d_ff, spec.heads, spec.dropout)
        self.encoder_embedding = DataEmbedding(columns, calendar_features, spec.d_model, None, spec.dropout)
        self.decoder_embedding = DataEmbedding(columns, calendar_features, spec.d_model, None, spec.dropout)
        self.encoder = SeasonalEncoder(spec.encoder_layers, sizes, spec.moving_avg, encoder_attention)
        self.decoder = SeasonalDecoder(
            spec.decoder_layers, sizes, spec.moving_avg, columns, decoder_attention, cross_attention
        )
        self.projection = nn.Linear(spec.d_model, columns)

    def forward(self, x_enc: Tensor, x_mark_enc: Tensor, x_dec: Tensor, x_mark_dec: Tensor) -> Tensor:  # noqa: ARG002
        """Forecast [B, H, C] from [B, L, C], [B, L, F], [B, label_len + H, C] and [B, label_len + H, F]."""
        season, trend = self._seeds(x_enc)
        encoded = self.encoder(self.encoder_embedding(x_enc, x_mark_enc))
        season, trend = self.decoder(self.decoder_embedding(season, x_mark_dec), encoded, trend)
        return (trend + self.projection(season))[:, -self.lengths.horizon :]  # type: ignore[no-any-return]

    def _seeds(self, x_enc: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last season and zeros, the last trend and the input's mean, both [B, label_len + H, C]."""
        season, trend = (
            part[:, self.lengths.input_len - self.lengths.label_len :] for part in decompose(x_enc, self.moving_avg)
        )
        mean = x_enc.mean(dim=1, keepdim=True).expand(-1, self.lengths.horizon, -1)
        return torch.cat((season, torch.zeros_like(mean)), dim=1), torch.cat((trend, mean), dim=1)
