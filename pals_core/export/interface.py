"""What an exported network is given and gives.

Shapes: B batch, L input_len, H horizon, C columns of a window, F calendar features and known-future columns, G groups
of columns that go through the network together: one, or one for each pooled series.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor, nn

from pals_core.checkpoint.header import CheckpointHeader
from pals_core.data.lengths import window_lengths
from pals_core.spec import MissingPolicy

# In the order of a forecaster's arguments.
NETWORK_INPUTS = ("x_enc", "x_mark_enc", "x_dec", "x_mark_dec")


class Units(StrEnum):
    """Of the values that go in and come out: the data's own, or those the network computes in."""

    ORIGINAL = "original"
    SCALED = "scaled"


class ScaledUnits(nn.Module):
    """The network as it is, [B, H, C]: always the same four inputs, whether or not it reads them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.inputs = NETWORK_INPUTS

    def forward(self, *given: Tensor) -> Tensor:
        return self.model(*given)  # type: ignore[no-any-return]

    def given(self, windows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return what `forward` takes of windows in scaled units, the four arguments of a forecaster."""
        return tuple(windows)

    def scaled(self, forecast: Tensor) -> Tensor:
        return forecast


class OriginalUnits(nn.Module):
    """The network between its scaling and the inverse, [B, H, C] in double precision.

    Of a forecaster's four inputs it takes `x_enc` and what else the network reads; the decoder's is made from `x_enc`.
    Known-future columns, the last of `x_mark_enc` and `x_mark_dec`, come in their own units too. Of a pooled network
    `series`, [B] whole numbers, says whose scaling each window has. Where the training masked missing values, NaN is
    one.
    """

    mean: Tensor  # [G, 1, C]
    std: Tensor
    mark_mean: Tensor  # [G, 1, F], 0 for calendar features
    mark_std: Tensor  # 1 for calendar features

    def __init__(self, model: nn.Module, header: CheckpointHeader) -> None:
        super().__init__()
        self.model = model
        self.lengths = window_lengths(header.spec.data)
        self.masked = header.spec.data.missing is MissingPolicy.MASK
        read = {"x_enc"} | inputs_read(model, header) - {"x_dec"}
        self.inputs = tuple(name for name in NETWORK_INPUTS if name in read)
        if header.spec.data.pooled:
            self.inputs += ("series",)
        of_values = (len(header.groups), len(header.groups[0]))
        calendar = (len(header.groups), len(header.calendar_features))
        self._keep("mean", np.reshape(header.scaler_mean, of_values))
        self._keep("std", np.reshape(header.scaler_std, of_values))
        self._keep("mark_mean", np.zeros(calendar), header.known_future_mean)
        self._keep("mark_std", np.ones(calendar), header.known_future_std)

    def forward(self, *given: Tensor) -> Tensor:
        inputs = dict(zip(self.inputs, given, strict=True))
        mean, std, mark_mean, mark_std = self._scaling(inputs.get("series"))
        x_enc = self._scaled(inputs["x_enc"], mean, std)
        batch, columns, features = x_enc.shape[0], mean.shape[2], mark_mean.shape[2]
        network_inputs = [x_enc]
        for name, steps in (("x_mark_enc", self.lengths.input_len), ("x_mark_dec", self.lengths.decoder_len)):
            if name in inputs:
                network_inputs.append(self._scaled(inputs[name], mark_mean, mark_std))
            else:  # not read, or without a feature
                network_inputs.append(x_enc.new_zeros(batch, steps, features))
        seed = x_enc[:, self.lengths.input_len - self.lengths.label_len :]
        x_dec = torch.cat((seed, x_enc.new_zeros(batch, self.lengths.horizon, columns)), dim=1)
        network_inputs.insert(2, x_dec)
        forecast: Tensor = self.model(*network_inputs)
        return forecast.double() * std + mean

    def given(self, windows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return what `forward` takes of windows in scaled units, of one series after another where there are some."""
        x_enc, x_mark_enc, _, x_mark_dec = (window.double() for window in windows)
        series = self._series(x_enc.shape[0])
        mean, std, mark_mean, mark_std = self._scaling(series)
        marks = (each * mark_std + mark_mean for each in (x_mark_enc, x_mark_dec))
        named = dict(zip(("x_enc", "x_mark_enc", "x_mark_dec"), (x_enc * std + mean, *marks), strict=True))
        return tuple((named | {"series": series})[name] for name in self.inputs)

    def scaled(self, forecast: Tensor) -> Tensor:
        """Return in scaled units what `forward` makes of `given` windows."""
        mean, std, _, _ = self._scaling(self._series(forecast.shape[0]))
        return (forecast - mean) / std

    def _scaling(self, series: Tensor | None) -> tuple[Tensor, ...]:
        everything = (self.mean, self.std, self.mark_mean, self.mark_std)
        return everything if series is None else tuple(each.index_select(0, series) for each in everything)

    def _series(self, batch: int) -> Tensor:
        return torch.arange(batch) % self.mean.shape[0]

    def _scaled(self, values: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        scaled = (values - mean) / std
        if self.masked:
            scaled = torch.where(scaled.isnan(), 0.0, scaled)
        return scaled.float()

    def _keep(self, name: str, values: np.ndarray, beside: Sequence[Sequence[float]] = ()) -> None:
        """Register one row of numbers for each group, [G, 1, …]."""
        rows = np.hstack((values, beside)) if beside else values
        self.register_buffer(name, torch.tensor(rows, dtype=torch.float64).unsqueeze(1), persistent=False)


def network_inputs(header: CheckpointHeader, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return windows of normally distributed values and of calendar features anywhere in their range, scaled.

    As a forecaster takes them: [B, L, C], [B, L, F], [B, label_len + H, C] and [B, label_len + H, F].
    """
    lengths = window_lengths(header.spec.data)
    columns = len(header.groups[0])
    x_enc = torch.randn(batch, lengths.input_len, columns, generator=generator)
    marks = torch.rand(batch, lengths.input_len + lengths.horizon, header.features, generator=generator) - 0.5
    start = lengths.input_len - lengths.label_len
    x_dec = torch.cat((x_enc[:, start:], torch.zeros(batch, lengths.horizon, columns)), dim=1)
    return x_enc, marks[:, : lengths.input_len], x_dec, marks[:, start:]


def inputs_read(model: nn.Module, header: CheckpointHeader) -> frozenset[str]:
    """Return which of its four inputs a network's forecast depends on."""
    inputs = [value.requires_grad_() for value in network_inputs(header, 1, torch.Generator().manual_seed(0))]
    with torch.enable_grad():
        gradients = torch.autograd.grad(model(*inputs).sum(), inputs, allow_unused=True)
    return frozenset(
        name
        for name, gradient in zip(NETWORK_INPUTS, gradients, strict=True)
        if gradient is not None and gradient.numel()
    )
