"""Non-stationary Transformer: windows are standardised, attention is told what that took away.

Shapes: B batch, L input steps, H horizon, C columns, F calendar features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pals_core.data.lengths import WindowLengths
from pals_core.layers.attention import Destationarisation
from pals_core.layers.embedding import DataEmbedding
from pals_core.layers.projector import Projector
from pals_core.layers.stacks import Decoder, Encoder, LayerSizes
from pals_core.layers.standardisation import standardise
from pals_core.spec import NSTransformerSpec


class NSTransformer(nn.Module):
    """Transformer over standardised windows with de-stationary attention (arXiv 2205.14415).

    The decoder is seeded from the standardised input, so `x_dec` is not read.
    """

    def __init__(
        self,
        spec: NSTransformerSpec,
        lengths: WindowLengths,
        columns: int,
        calendar_features: int,
        seed: int,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.lengths = lengths
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
        self.tau_projector = Projector(lengths.input_len, columns, spec.projector_hidden, outputs=1)
        self.delta_projector = Projector(lengths.input_len, columns, spec.projector_hidden, outputs=lengths.input_len)

    def forward(self, x_enc: Tensor, x_mark_enc: Tensor, x_dec: Tensor, x_mark_dec: Tensor) -> Tensor:  # noqa: ARG002
        """Forecast [B, H, C] from [B, L, C], [B, L, F], [B, label_len + H, C] and [B, label_len + H, F]."""
        values, mean, std = standardise(x_enc)
        destationarisation = Destationarisation(
            tau=self.tau_projector(x_enc, std).exp().squeeze(1), delta=self.delta_projector(x_enc, mean)
        )
        seed = values[:, self.lengths.input_len - self.lengths.label_len :]
        seed = torch.cat((seed, seed.new_zeros(seed.shape[0], self.lengths.horizon, seed.shape[2])), dim=1)
        encoded = self.encoder(self.encoder_embedding(values, x_mark_enc), destationarisation)
        embedded = self.decoder_embedding(seed, x_mark_dec)
        decoded = self.decoder(embedded, encoded, self.lengths.horizon, destationarisation)
        forecast: Tensor = self.projection(decoded)
        return forecast * std + mean
