"""The loss counts what is known and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pals_core.data.windows import Batch
from pals_core.training.loss import squared_error_sums, training_loss


def batch_of(target: Tensor, known: Tensor | None) -> Batch:
    nothing = target.new_zeros(0)
    return Batch(nothing, nothing, nothing, nothing, target, known)


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(5, 4, 3, requires_grad=True), torch.randn(5, 4, 3)


def test_when_all_is_known_it_is_the_mean_squared_error_to_the_bit(pair: tuple[Tensor, Tensor]) -> None:
    forecast, target = pair
    assert torch.equal(training_loss(forecast, batch_of(target, None)), nn.functional.mse_loss(forecast, target))


def test_unknown_targets_have_neither_loss_nor_gradient(pair: tuple[Tensor, Tensor]) -> None:
    forecast, target = pair
    known = torch.rand(5, 4, 3) < 0.6
    loss = training_loss(forecast, batch_of(target, known))
    assert loss.detach().item() == pytest.approx(float((forecast.detach() - target)[known].square().mean()))
    loss.backward()  # type: ignore[no-untyped-call]
    assert forecast.grad is not None
    assert (forecast.grad[~known] == 0).all()
    assert (forecast.grad[known] != 0).all()
    # Whatever stands where nothing is known, infinite or not, does not count.
    wild = torch.where(known, forecast.detach(), torch.inf)
    assert training_loss(wild, batch_of(target, known)).item() == loss.detach().item()


def test_squared_errors_are_of_every_known_target(pair: tuple[Tensor, Tensor]) -> None:
    forecast, target = pair[0].detach(), pair[1]
    squared, count = squared_error_sums(forecast, batch_of(target, None))
    assert float(count) == 5 * 4 * 3
    assert (squared / count).item() == pytest.approx(float((forecast - target).square().mean()), rel=1e-6)
    known = torch.rand(5, 4, 3) < 0.6
    squared, count = squared_error_sums(torch.where(known, forecast, torch.inf), batch_of(target, known))
    assert float(count) == int(known.sum())
    assert (squared / count).item() == pytest.approx(float((forecast - target)[known].square().mean()), rel=1e-6)
