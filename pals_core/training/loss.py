"""How far a forecast is from what came: the loss that is trained on, and the one that decides.

Shapes: B batch, H horizon, C columns of a window.
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


def squared_error_sums(forecast: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the sum of squared errors of [B, H, C] over the targets that are known, and how many are, in float64."""
    squared = (forecast - batch.target).double().square()
    if batch.known is None:
        return squared.sum(), squared.new_tensor(squared.numel())
    return squared.masked_fill(~batch.known, 0).sum(), batch.known.sum().double()
