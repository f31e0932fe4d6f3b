"""Errors of a forecaster over windows; every window counts once.

Shapes: B batch, H horizon, C columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pals_core.checkpoint.header import Metrics, OriginalMetrics
from pals_core.data.scaling import Scaler
from pals_core.data.windows import WindowSet
from pals_core.training.forward import ForwardPass

MAX_BATCH = 64


@dataclass(frozen=True)
class Errors:
    """Mean squared and mean absolute error of each column, [C], in scaled units."""

    squared: npt.NDArray[np.float64]
    absolute: npt.NDArray[np.float64]

    @property
    def mse(self) -> float:
        return float(self.squared.mean())

    def metrics(self, scaler: Scaler) -> Metrics:
        """Return the errors over all columns in scaled units and in the data's own."""
        return Metrics(
            mse=self.mse,
            mae=float(self.absolute.mean()),
            original=OriginalMetrics(
                mse=float((self.squared * scaler.std**2).mean()), mae=float((self.absolute * scaler.std).mean())
            ),
        )


def all_windows(windows: WindowSet, device: torch.device) -> Tensor:
    return torch.arange(len(windows), device=device)


def spread_windows(windows: WindowSet, most: int, device: torch.device) -> Tensor:
    """Return at most `most` window indices, evenly spaced from the first on."""
    count = min(most, len(windows))
    return torch.arange(count, device=device) * len(windows) // count


@torch.inference_mode()
def evaluate(forward: ForwardPass, windows: WindowSet, indices: Tensor) -> Errors:
    """Return the errors over the windows `indices`, in evaluation mode; the model's mode is restored."""
    model = forward.model
    was_training = model.training
    model.eval()
    squared = absolute = torch.zeros((), dtype=torch.float64, device=indices.device)
    for chunk in indices.tensor_split(-(-len(indices) // MAX_BATCH)):
        batch = windows.batch(chunk)
        error = (forward(batch) - batch.target).double()
        squared = squared + error.square().mean(dim=1).sum(dim=0)
        absolute = absolute + error.abs().mean(dim=1).sum(dim=0)
    model.train(was_training)
    return Errors((squared / len(indices)).cpu().numpy(), (absolute / len(indices)).cpu().numpy())
