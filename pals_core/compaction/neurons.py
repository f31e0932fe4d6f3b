"""Hidden neurons whose activation nobody needs to compute."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


@torch.no_grad()
def remove_idle_neurons(before: nn.Linear, after: nn.Linear, activation: Callable[[Tensor], Tensor]) -> int:
    """Take the idle neurons between two layers out of both, in place, and return how many there were.

    Idle is a neuron that nothing goes on from, its column of `after` being zero, or whose activation is constant, its
    row of `before` being zero: what that adds to `after` joins the bias there, and without a bias the neuron stays
    unless it adds nothing.
    """
    constant = before.weight.new_zeros(before.out_features) if before.bias is None else activation(before.bias)
    unheard = (after.weight == 0).all(dim=0)
    still = (before.weight == 0).all(dim=1)
    if after.bias is None:
        still &= constant == 0
    else:
        shift_bias(after, after.weight[:, still], constant[still])
    kept = ~(still | unheard)
    keep_outputs(before, kept)
    keep_inputs(after, kept)
    return int((~kept).sum())


def shift_bias(layer: nn.Linear, weight: Tensor, inputs: Tensor) -> None:
    """Add to a layer's bias what constant `inputs`, [n], of `weight`, [outputs, n], contribute."""
    layer.bias = nn.Parameter((layer.bias.double() + weight.double() @ inputs.double()).to(layer.bias.dtype))


def keep_outputs(layer: nn.Linear, kept: Tensor) -> None:
    """Leave in a layer the outputs that are True in `kept`."""
    layer.weight = nn.Parameter(layer.weight[kept])
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias[kept])
    layer.out_features = len(layer.weight)


def keep_inputs(layer: nn.Linear, kept: Tensor) -> None:
    """Leave in a layer the inputs that are True in `kept`."""
    layer.weight = nn.Parameter(layer.weight[:, kept])
    layer.in_features = layer.weight.shape[1]
