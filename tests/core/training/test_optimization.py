from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from pals_core.sparsity.masks import MaskSet
from pals_core.spec import TrainingSpec
from pals_core.training.optimization import clip_gradients, make_optimizer


@pytest.mark.parametrize(
    ("recipe", "kind", "decay"),
    [
        (TrainingSpec(), torch.optim.Adam, 0.0),
        (TrainingSpec(optimizer="adamw"), torch.optim.AdamW, 0.01),
        (TrainingSpec(optimizer="adamw", weight_decay=0.2), torch.optim.AdamW, 0.2),
    ],
)
def test_the_optimizer_is_the_one_asked_for(recipe: TrainingSpec, kind: type, decay: float) -> None:
    optimizer = make_optimizer(nn.Linear(2, 2), recipe)
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["weight_decay"] == decay


def test_only_complex_weights_do_without_the_fused_step() -> None:
    model = nn.Linear(2, 2)
    model.block = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    optimizer = make_optimizer(model, TrainingSpec(learning_rate=0.5))
    fused = {id(weight): group["fused"] for group in optimizer.param_groups for weight in group["params"]}
    assert fused == {id(model.weight): True, id(model.bias): True, id(model.block): False}
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, 0.1)
    before = [weight.detach().clone() for weight in model.parameters()]
    optimizer.step()
    for weight, was in zip(model.parameters(), before, strict=True):
        assert_close(weight.detach(), was - 0.5)


def layer_with_gradient() -> tuple[nn.Linear, MaskSet]:
    layer = nn.Linear(2, 2)
    layer.weight.grad = torch.tensor([[3.0, 0.0], [0.0, 100.0]])
    layer.bias.grad = torch.tensor([0.0, 4.0])
    masks = MaskSet(layer.named_parameters())
    masks["weight"] = torch.tensor([[True, True], [True, False]])
    return layer, masks


@pytest.mark.parametrize(
    ("largest", "factor"),
    [
        pytest.param(2.5, 0.5, id="the active weights' norm of 5 is halved"),
        pytest.param(6.0, 1.0, id="a small one stays"),
    ],
)
def test_gradients_are_clipped_by_the_norm_of_the_active_weights(largest: float, factor: float) -> None:
    layer, masks = layer_with_gradient()
    clip_gradients(layer, masks, largest)
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    assert layer.weight.grad.tolist() == [[pytest.approx(3 * factor), 0], [0, pytest.approx(100 * factor)]]
    assert layer.bias.grad.tolist() == [0, pytest.approx(4 * factor)]
