from __future__ import annotations

import math

import pytest
import torch

from pals_core.errors import ErrorCode, TrainingFailed
from pals_core.training.progress import FLUSH_STEPS, LossBuffer


def rate(step: int) -> float:
    return step / 1000


def test_losses_come_out_in_order_and_once() -> None:
    losses = LossBuffer(rate)
    for step in (1, 2, 3):
        losses.add(step, torch.tensor(float(step)))
    assert losses.flush() == (1.0, 2.0, 3.0)
    assert losses.flush() == ()


def test_the_mean_is_that_of_the_epoch() -> None:
    losses = LossBuffer(rate)
    for epoch_losses, mean in (((1.0, 2.0, 6.0), 3.0), ((4.0,), 4.0)):
        for step, loss in enumerate(epoch_losses, start=1):
            losses.add(step, torch.tensor(loss))
            losses.flush()
        assert losses.end_epoch() == mean


def test_when_losses_are_flushed_does_not_change_their_mean() -> None:
    values = [1 / step for step in range(1, 30)]
    means = set()
    for portion in (1, 3, 7, 29):
        losses = LossBuffer(rate)
        for step, value in enumerate(values, start=1):
            losses.add(step, torch.tensor(value, dtype=torch.float64))
            if step % portion == 0:
                losses.flush()
        losses.flush()
        means.add(losses.end_epoch())
    assert len(means) == 1


def test_a_buffer_goes_on_where_another_left_off() -> None:
    first, second = LossBuffer(rate), LossBuffer(rate)
    first.add(1, torch.tensor(1.0))
    with pytest.raises(ValueError, match="not been flushed"):
        first.state()
    first.flush()
    second.load(first.state())
    second.add(2, torch.tensor(2.0))
    second.flush()
    assert second.end_epoch() == 1.5


def test_the_first_loss_is_due_at_once_then_many() -> None:
    losses = LossBuffer(rate)
    losses.add(1, torch.tensor(1.0))
    assert losses.is_due
    losses.flush()
    for step in range(2, FLUSH_STEPS + 2):
        losses.add(step, torch.tensor(1.0))
    assert losses.is_due


def test_losses_that_were_checked_still_wait_to_be_told() -> None:
    losses = LossBuffer(rate)
    assert losses.check() == ()
    losses.add(1, torch.tensor(1.0))
    losses.add(2, torch.tensor(2.0))
    assert losses.check() == (1.0, 2.0)
    assert losses.flush() == (1.0, 2.0)
    assert losses.check() == ()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_loss_that_is_no_number_is_named_by_its_step(bad: float) -> None:
    losses = LossBuffer(rate)
    for step, loss in enumerate([1.0, 1.0, bad, math.nan], start=11):
        losses.add(step, torch.tensor(loss))
    with pytest.raises(
        TrainingFailed, match=r"training loss became .* at step 13, at a learning rate of 0\.013;"
    ) as caught:
        losses.flush()
    assert caught.value.code is ErrorCode.DIVERGED
