"""NLinear: one linear layer on what the window is above its last value.

Shapes: B batch, L input steps, H horizon, C columns.
"""

from __future__ import annotations

from torch import Tensor, nn

from pals_core.data.lengths import WindowLengths
from pals_core.layers.linear import linear_over_time
from pals_core.spec import NLinearSpec


class NLinear(nn.Module):
    """Linear forecast of the differences to the last value (arXiv 2205.13504); reads only the input's values."""

    def __init__(
        self,
        spec: NLinearSpec,
        lengths: WindowLengths,
        columns: int,
        calendar_features: int,  # noqa: ARG002
        seed: int,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.linear = linear_over_time(columns, lengths.input_len, lengths.horizon, per_column=spec.per_column)

    def forward(self, x_enc: Tensor, x_mark_enc: Tensor, x_dec: Tensor, x_mark_dec: Tensor) -> Tensor:  # noqa: ARG002
        """Forecast [B, H, C] from [B, L, C]."""
        last = x_enc[:, -1:]
        forecast: Tensor = self.linear((x_enc - last).transpose(1, 2))
        return forecast.transpose(1, 2) + last
