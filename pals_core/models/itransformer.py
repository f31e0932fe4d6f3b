"""iTransformer: columns are tokens, attention runs among them.

Shapes: B batch, L input steps, H horizon, C columns, F calendar features, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pals_core.data.lengths import WindowLengths
from pals_core.layers.dropout import Dropout
from pals_core.layers.stacks import Encoder, LayerSizes
from pals_core.layers.standardisation import standardise
from pals_core.spec import ITransformerSpec


class ITransformer(nn.Module):
    """Transformer encoder over whole series, each column and each calendar feature being one token.

    arXiv 2310.06625, section 3; has no decoder, so reads nothing of the horizon's calendar.
    """

    def __init__(
        self,
        spec: ITransformerSpec,
        lengths: WindowLengths,
        columns: int,
        calendar_features: int,  # noqa: ARG002
        seed: int,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.columns = columns
        self.embedding = nn.Linear(lengths.input_len, spec.d_model)
        self.dropout = Dropout(spec.dropout)
        sizes = LayerSizes(spec.d_model, spec.d_ff, spec.heads, spec.dropout)
        self.encoder = Encoder(spec.encoder_layers, sizes)
        self.projection = nn.Linear(spec.d_model, lengths.horizon)

    def forward(self, x_enc: Tensor, x_mark_enc: Tensor, x_dec: Tensor, x_mark_dec: Tensor) -> Tensor:  # noqa: ARG002
        """Forecast [B, H, C] from [B, L, C] and [B, L, F]."""
        values, mean, std = standardise(x_enc)
        series = torch.cat((values, x_mark_enc), dim=2).transpose(1, 2)  # [B, C + F, L]
        tokens = self.encoder(self.dropout(self.embedding(series)))
        forecast: Tensor = self.projection(tokens[:, : self.columns])  # [B, C, H]
        return forecast.transpose(1, 2) * std + mean
