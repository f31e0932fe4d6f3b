"""In which order the training windows come, epoch for epoch."""

from __future__ import annotations

import torch
from torch import Tensor


class BatchOrder:
    """Shuffles the windows anew for each epoch; windows that fill no batch are left out of it."""

    def __init__(self, windows: int, batch_size: int, seed: int) -> None:
        self.windows = windows
        self.batch_size = batch_size
        self._generator = torch.Generator().manual_seed(seed)
        self._before_epoch = self._generator.get_state()

    @property
    def steps_per_epoch(self) -> int:
        return self.windows // self.batch_size

    def rest_of_epoch(self, done: int, device: torch.device) -> tuple[Tensor, ...]:
        """Draw an epoch's order and return the window indices, [B] each, of its batches but for the first `done`."""
        self._before_epoch = self._generator.get_state()
        order = torch.randperm(self.windows, generator=self._generator).to(device)
        return torch.split(order[: self.steps_per_epoch * self.batch_size], self.batch_size)[done:]

    def end_epoch(self) -> None:
        """The next epoch's order is due, even before it is drawn."""
        self._before_epoch = self._generator.get_state()

    def state(self) -> Tensor:
        """Return the random state from which the present epoch's order is drawn."""
        return self._before_epoch

    def load_state(self, state: Tensor) -> None:
        self._generator.set_state(state)
        self._before_epoch = state
