"""A batch in parts has the gradient of the batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pals_core.data.windows import Batch
from pals_core.training.arithmetic import Arithmetic
from pals_core.training.forward import ForwardPass
from pals_core.training.gradient import backpropagate


class Linear(nn.Module):
    """The last step of the history, weighted, as every step of the forecast."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
        self.sizes: list[int] = []

    def forward(self, x_enc: Tensor, x_mark_enc: Tensor, x_dec: Tensor, x_mark_dec: Tensor) -> Tensor:
        self.sizes.append(len(x_enc))
        return (x_enc[:, -1:] * self.weight).expand(-1, 4, -1)


@pytest.fixture
def batch() -> Callable[[Tensor | None], Batch]:
    generator = torch.Generator().manual_seed(1)
    history, target = torch.randn(7, 5, 3, generator=generator), torch.randn(7, 4, 3, generator=generator)

    def build(known: Tensor | None) -> Batch:
        return Batch(history, history, history, history, target, known)

    return build


def computed(batch: Batch, parts: int) -> tuple[Tensor, Tensor, list[int]]:
    model = Linear()
    loss = backpropagate(ForwardPass(model, torch.device("cpu"), Arithmetic()), batch, parts)
    assert model.weight.grad is not None
    return loss.detach(), model.weight.grad, model.sizes


def known_targets() -> Tensor:
    known = torch.rand(7, 4, 3, generator=torch.Generator().manual_seed(2)) < 0.5
    known[4:] = False  # nothing at all in the last of three parts but one window
    known[6, 0, 0] = True
    known[3:6] = False
    return known


@pytest.mark.parametrize("known", [None, known_targets()], ids=["all known", "some missing"])
@pytest.mark.parametrize("parts", [2, 3, 7])
def test_loss_and_gradient_are_those_of_the_whole_batch(
    batch: Callable[[Tensor | None], Batch], known: Tensor | None, parts: int
) -> None:
    loss, gradient, sizes = computed(batch(known), parts)
    whole_loss, whole_gradient, whole = computed(batch(known), 1)
    torch.testing.assert_close(loss, whole_loss)
    torch.testing.assert_close(gradient, whole_gradient)
    assert whole == [7]
    assert max(sizes) == -(-7 // parts)
    assert known is not None or sum(sizes) == 7
