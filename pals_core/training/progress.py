"""Training losses on their way from the device to events, without waiting for the device at every step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from pals_core.checkpoint.header_part import HeaderPart
from pals_core.errors import ErrorCode, TrainingFailed

FLUSH_SECONDS = 0.5
FLUSH_STEPS = 50


class EpochLosses(HeaderPart):
    """The losses of an epoch so far."""

    sum: float
    steps: int = Field(ge=0)


class LossBuffer:
    """Collects the loss of each step on its device and hands them on in batches."""

    def __init__(self, learning_rate_at: Callable[[int], float]) -> None:
        """`learning_rate_at` a step is told when the loss of that step is not a number."""
        self._learning_rate_at = learning_rate_at
        self._losses: list[Tensor] = []
        self._last_step = 0
        self._flushed_at = -math.inf  # the first loss is told at once
        self._epoch_sum = 0.0
        self._epoch_steps = 0

    def add(self, step: int, loss: Tensor) -> None:
        self._losses.append(loss.detach())
        self._last_step = step

    @property
    def is_due(self) -> bool:
        return len(self._losses) >= FLUSH_STEPS or time.monotonic() - self._flushed_at >= FLUSH_SECONDS

    def flush(self) -> tuple[float, ...]:
        """Return the losses since the last flush; raises TrainingFailed when one is NaN or infinite."""
        self._flushed_at = time.monotonic()
        losses = self.check()
        self._losses.clear()
        for loss in losses:  # One by one: when losses are flushed must not change how their sum is rounded.
            self._epoch_sum += loss
        self._epoch_steps += len(losses)
        return losses

    def check(self) -> tuple[float, ...]:
        """Return the losses since the last flush, which keep waiting for one; raises TrainingFailed as `flush` does."""
        losses: list[float] = torch.stack(self._losses).tolist() if self._losses else []
        for position, loss in enumerate(losses):
            step = self._last_step - len(losses) + 1 + position
            require_finite(loss, step, self._learning_rate_at(step), "training")
        return tuple(losses)

    def end_epoch(self) -> float:
        """Return the mean of the losses flushed since the last epoch's end, and begin anew."""
        mean = self._epoch_sum / self._epoch_steps
        self._epoch_sum, self._epoch_steps = 0.0, 0
        return mean

    def state(self) -> EpochLosses:
        """Return what is known of the epoch so far; nothing may wait to be flushed."""
        if self._losses:
            raise ValueError(f"{len(self._losses)} losses have not been flushed")
        return EpochLosses(sum=self._epoch_sum, steps=self._epoch_steps)

    def load(self, state: EpochLosses) -> None:
        self._epoch_sum, self._epoch_steps = state.sum, state.steps


def require_finite(loss: float, step: int, learning_rate: float, which: str) -> float:
    """Return `loss`; raises TrainingFailed when it is NaN or infinite."""
    if not math.isfinite(loss):
        raise TrainingFailed(
            f"the {which} loss became {loss} at step {step}, at a learning rate of {learning_rate:g}; lower "
            "learning_rate, set gradient_clip, or look for extreme values",
            code=ErrorCode.DIVERGED,
        )
    return loss
