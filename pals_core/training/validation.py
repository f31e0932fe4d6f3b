"""The loss over windows that decides: when to prune, which epoch is best, when to stop.

Every window counts once, or, with missing values, every known target.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pals_core.data.windows import WindowSet
from pals_core.training.forward import ForwardPass
from pals_core.training.loss import squared_error_sums


def all_windows(windows: WindowSet, device: torch.device) -> Tensor:
    return torch.arange(len(windows), device=device)


def spread_windows(windows: WindowSet, most: int, device: torch.device) -> Tensor:
    """Return at most `most` window indices, evenly spaced from the first on."""
    count = min(most, len(windows))
    return torch.arange(count, device=device) * len(windows) // count


@torch.inference_mode()
def mean_squared_error(forward: ForwardPass, windows: WindowSet, indices: Tensor) -> float:
    """Return the error over the windows `indices` in scaled units, in evaluation mode; the model's mode is restored."""
    model = forward.model
    was_training = model.training
    model.eval()
    total = count = torch.zeros((), dtype=torch.float64, device=indices.device)
    for chunk in windows.in_batches(indices):
        batch = windows.batch(chunk)
        squared, known = squared_error_sums(forward(batch), batch)
        total, count = total + squared, count + known
    model.train(was_training)
    return float(total / count)
