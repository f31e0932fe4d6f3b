"""Errors of a forecaster over windows; every window counts once, or, with missing values, every known target.

Shapes: C columns, or pooled series.
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
from pals_core.training.loss import error_sums

MAX_BATCH = 64


@dataclass(frozen=True)
class Errors:
    """Mean squared and mean absolute error of each column, [C], in scaled units, and how much each one counts."""

    squared: npt.NDArray[np.float64]
    absolute: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64] | None = None  # None: all alike

    @property
    def mse(self) -> float:
        return self._mean(self.squared)

    def metrics(self, scaler: Scaler) -> Metrics:
        """Return the errors over all columns in scaled units and in the data's own."""
        return Metrics(
            mse=self.mse,
            mae=self._mean(self.absolute),
            original=OriginalMetrics(
                mse=self._mean(self.squared * scaler.std**2), mae=self._mean(self.absolute * scaler.std)
            ),
        )

    def _mean(self, errors: npt.NDArray[np.float64]) -> float:
        return float(np.average(errors, weights=self.weights))


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
    squared = absolute = counts = torch.zeros((), dtype=torch.float64, device=indices.device)
    for chunk in indices.tensor_split(-(-len(indices) // MAX_BATCH)):
        batch = windows.batch(chunk)
        of_chunk = [windows.by_column(sums, chunk) for sums in error_sums(forward(batch), batch)]
        squared, absolute, counts = squared + of_chunk[0], absolute + of_chunk[1], counts + of_chunk[2]
    model.train(was_training)
    weights = None if windows.counts_alike else counts.cpu().numpy()
    counts = counts.clamp(min=1)  # a series without a window here has no errors, and no weight
    return Errors((squared / counts).cpu().numpy(), (absolute / counts).cpu().numpy(), weights)
