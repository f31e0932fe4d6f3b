"""How far a forecast is from what came: the loss that is trained on and the errors that are reported.

Shapes: B batch, H horizon, C columns of a window, E columns, or pooled series, whose errors are told apart.
"""

from __future__ import annotations

from torch import Tensor, nn

from pals_core.data.windows import Batch


def training_loss(forecast: Tensor, batch: Batch) -> Tensor:
    """Return the mean squared error of [B, H, C] over the targets that are known; at least one is."""
    if batch.known is None:
        return nn.functional.mse_loss(forecast, batch.target)
    squared = (forecast - batch.target).square()
    return squared.masked_fill(~batch.known, 0).sum() / batch.known.sum()


def error_sums(forecast: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return squared and absolute errors and how many targets they are of, [B, C] each, in float64.

    The errors are means over the horizon where all of it is known, counted as one; else sums over what is known of it.
    """
    error = (forecast - batch.target).double()
    if batch.known is None:
        ones = error.new_ones(error.shape[0], error.shape[2])
        return error.square().mean(dim=1), error.abs().mean(dim=1), ones
    error = error.masked_fill(~batch.known, 0)
    return error.square().sum(dim=1), error.abs().sum(dim=1), batch.known.sum(dim=1).double()
