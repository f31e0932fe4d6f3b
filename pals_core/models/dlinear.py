"""DLinear: one linear layer for the trend, one for the remainder.

Shapes: B batch, L input steps, H horizon, C columns.
"""

from __future__ import annotations

from torch import Tensor, nn

from pals_core.data.lengths import WindowLengths
from pals_core.layers.decomposition import decompose
from pals_core.layers.linear import linear_over_time
from pals_core.spec import DLinearSpec


class DLinear(nn.Module):
    """Sum of two linear forecasts over time (arXiv 2205.13504); reads neither the calendar nor the decoder's input."""

    def __init__(
        self,
        spec: DLinearSpec,
        lengths: WindowLengths,
        columns: int,
        calendar_features: int,  # noqa: ARG002
        seed: int,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.moving_avg = spec.moving_avg
        self.remainder = linear_over_time(columns, lengths.input_len, lengths.horizon, per_column=spec.per_column)
        self.trend = linear_over_time(columns, lengths.input_len, lengths.horizon, per_column=spec.per_column)

    def forward(self, x_enc: Tensor, x_mark_enc: Tensor, x_dec: Tensor, x_mark_dec: Tensor) -> Tensor:  # noqa: ARG002
        """Forecast [B, H, C] from [B, L, C]."""
        remainder, trend = decompose(x_enc, self.moving_avg)
        forecast: Tensor = self.remainder(remainder.transpose(1, 2)) + self.trend(trend.transpose(1, 2))
        return forecast.transpose(1, 2)
