"""Informer: ProbSparse attention and an encoder that halves the sequence.

Shapes: B batch, L input steps, H horizon, C columns, F calendar features.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from pals_core.data.lengths import WindowLengths
from pals_core.layers.distilling import DistillingEncoder, distilled_length
from pals_core.layers.embedding import DataEmbedding
from pals_core.layers.prob_sparse import ProbSparseAttention
from pals_core.layers.stacks import AttentionFactory, Decoder, LayerSizes
from pals_core.spec import InformerSpec


class Informer(nn.Module):
    """Transformer whose attentions are all ProbSparse, with a distilling encoder (arXiv 2012.07436).

    The keys sampled in evaluation are drawn from `seed` and part of the state.
    """

    def __init__(
        self, spec: InformerSpec, lengths: WindowLengths, columns: int, calendar_features: int, seed: int
    ) -> None:
        super().__init__()
        self.horizon = lengths.horizon
        sizes = LayerSizes(spec.d_model, spec.d_ff, spec.heads, spec.dropout)
        generator = torch.Generator(device="cpu").manual_seed(seed)

        def attention(query_len: int, key_len: int) -> AttentionFactory:
            return partial(
                ProbSparseAttention,
                spec.d_model,
                spec.heads,
                query_len=query_len,
                key_len=key_len,
                factor=spec.factor,
                generator=generator,
                published_axis_order=spec.published_axis_order,
            )

        encoder_lengths = [lengths.input_len]
        while len(encoder_lengths) < spec.encoder_layers:
            longer = encoder_lengths[-1]
            encoder_lengths.append(distilled_length(longer) if spec.distil else longer)
        self.encoder_embedding = DataEmbedding(
            columns, calendar_features, spec.d_model, lengths.input_len, spec.dropout
        )
        self.decoder_embedding = DataEmbedding(
            columns, calendar_features, spec.d_model, lengths.decoder_len, spec.dropout
        )
        self.encoder = DistillingEncoder(
            [attention(length, length) for length in encoder_lengths], sizes, distil=spec.distil
        )
        self.decoder = Decoder(
            spec.decoder_layers,
            sizes,
            attention(lengths.decoder_len, lengths.decoder_len),
            attention(lengths.decoder_len, encoder_lengths[-1]),
        )
        self.projection = nn.Linear(spec.d_model, columns)

    def forward(self, x_enc: Tensor, x_mark_enc: Tensor, x_dec: Tensor, x_mark_dec: Tensor) -> Tensor:
        """Forecast [B, H, C] from [B, L, C], [B, L, F], [B, label_len + H, C] and [B, label_len + H, F]."""
        encoded = self.encoder(self.encoder_embedding(x_enc, x_mark_enc))
        decoded = self.decoder(self.decoder_embedding(x_dec, x_mark_dec), encoded, self.horizon)
        return self.projection(decoded)  # type: ignore[no-any-return]
