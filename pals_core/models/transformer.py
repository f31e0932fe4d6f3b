"""Vanilla encoder–decoder Transformer with calendar embedding.

Shapes: B batch, L input steps, H horizon, C columns, F calendar features.
"""

from __future__ import annotations

from torch import Tensor, nn

from pals_core.data.lengths import WindowLengths
from pals_core.layers.embedding import DataEmbedding
from pals_core.layers.stacks import Decoder, Encoder, LayerSizes
from pals_core.spec import TransformerSpec


class Transformer(nn.Module):
    """Post-norm Transformer (arXiv 1706.03762); the decoder sees the seed and the calendar of the horizon."""

    def __init__(
        self,
        spec: TransformerSpec,
        lengths: WindowLengths,
        columns: int,
        calendar_features: int,
        seed: int,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.horizon = lengths.horizon
        sizes = LayerSizes(spec.d_model, spec.d_ff, spec.heads, spec.dropout)
        self.encoder_embedding = DataEmbedding(
            columns, calendar_features, spec.d_model, lengths.input_len, spec.dropout
        )
        self.decoder_embedding = DataEmbedding(
            columns, calendar_features, spec.d_model, lengths.decoder_len, spec.dropout
        )
        self.encoder = Encoder(spec.encoder_layers, sizes)
        self.decoder = Decoder(spec.decoder_layers, sizes)
        self.projection = nn.Linear(spec.d_model, columns)

    def forward(self, x_enc: Tensor, x_mark_enc: Tensor, x_dec: Tensor, x_mark_dec: Tensor) -> Tensor:
        """Forecast [B, H, C] from [B, L, C], [B, L, F], [B, label_len + H, C] and [B, label_len + H, F]."""
        encoded = self.encoder(self.encoder_embedding(x_enc, x_mark_enc))
        decoded = self.decoder(self.decoder_embedding(x_dec, x_mark_dec), encoded, self.horizon)
        return self.projection(decoded)  # type: ignore[no-any-return]
