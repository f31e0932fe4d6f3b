"""PatchTST: every column on its own, patches of time steps as tokens.

Shapes: B batch, L input steps, H horizon, C columns, P patches, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pals_core.data.lengths import WindowLengths
from pals_core.layers.dropout import Dropout
from pals_core.layers.embedding import sinusoidal_position
from pals_core.layers.stacks import EncoderLayer, LayerSizes
from pals_core.layers.standardisation import standardise
from pals_core.spec import PatchTSTSpec


class PatchTST(nn.Module):
    """Transformer encoder over the patches of one column at a time, the columns sharing all weights.

    arXiv 2211.14730, section 3.1; reads neither the calendar nor the decoder's input.
    """

    position: Tensor  # [P, D]

    def __init__(
        self,
        spec: PatchTSTSpec,
        lengths: WindowLengths,
        columns: int,  # noqa: ARG002
        calendar_features: int,  # noqa: ARG002
        seed: int,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.patch_len, self.stride = spec.patch_len, spec.stride
        patches = (lengths.input_len - spec.patch_len) // spec.stride + 2
        sizes = LayerSizes(spec.d_model, spec.d_ff, spec.heads, spec.dropout)
        self.patch_embedding = nn.Linear(spec.patch_len, spec.d_model, bias=False)
        self.register_buffer("position", sinusoidal_position(patches, spec.d_model), persistent=False)
        self.layers = nn.ModuleList(EncoderLayer(sizes) for _ in range(spec.encoder_layers))
        self.norm = nn.BatchNorm1d(spec.d_model)
        self.head = nn.Linear(spec.d_model * patches, lengths.horizon)
        self.dropout = Dropout(spec.dropout)

    def forward(self, x_enc: Tensor, x_mark_enc: Tensor, x_dec: Tensor, x_mark_dec: Tensor) -> Tensor:  # noqa: ARG002
        """Forecast [B, H, C] from [B, L, C]."""
        values, mean, std = standardise(x_enc)
        series = values.transpose(1, 2)  # [B, C, L]
        series = torch.cat((series, series[:, :, -1:].expand(-1, -1, self.stride)), dim=2)
        patches = series.unfold(2, self.patch_len, self.stride).flatten(0, 1)  # [B·C, P, patch_len]
        embedded: Tensor = self.patch_embedding(patches)
        x: Tensor = self.dropout(embedded + self.position.to(embedded.dtype))
        for layer in self.layers:
            x = layer(x)
        features = self.norm(x.transpose(1, 2)).flatten(1)  # [B·C, D·P]
        forecast: Tensor = self.dropout(self.head(features))
        return forecast.view(x_enc.shape[0], x_enc.shape[2], -1).transpose(1, 2) * std + mean
