"""Masks as the published program of PALS keeps them: floats to multiply with, ranked by two full sorts a tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pals_core.sparsity.decision import Move
from pals_core.sparsity.masks import is_maskable
from pals_core.sparsity.prune_grow import exchange_counts


class ReferenceMasks:
    """A mask of zeros and ones for every parameter that pals_core masks; starts dense."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.masks = {
            name: torch.ones_like(parameter, requires_grad=False)
            for name, parameter in network.named_parameters()
            if is_maskable(name, parameter)
        }

    @property
    def sparsity(self) -> float:
        total = sum(mask.numel() for mask in self.masks.values())
        return (total - sum(int(mask.sum().item()) for mask in self.masks.values())) / total

    def multiply(self) -> None:
        """Set inactive weights to zero; the optimiser's moments stay as they are."""
        for name, parameter in self.network.named_parameters():
            if name in self.masks:
                parameter.data = parameter.data * self.masks[name]

    def update(self, move: Move, rate: float, factor: float) -> None:
        """Prune by magnitude, then grow by gradient, tensor by tensor; `rate` is ζ(t), `factor` γ.

        Inactive weights, or active ones, come before all others in the ranking, and of equal ones the first comes
        first: so the choice is the one of pals_core.
        """
        grown = {}
        for name, parameter in self.network.named_parameters():
            if name in self.masks:
                mask = self.masks[name]
                active = int(mask.sum().item())
                inactive = mask.numel() - active
                prune, grown[name] = exchange_counts(move, active, inactive, rate, factor)
                magnitude = torch.where(mask != 0, parameter.data.abs(), -1.0)
                _, order = torch.sort(magnitude.view(-1), stable=True)
                mask.view(-1)[order[: inactive + prune]] = 0.0
        for name, parameter in self.network.named_parameters():
            if name in self.masks:
                self.masks[name] = _grown(self.masks[name], parameter, grown[name])


def _grown(mask: Tensor, parameter: Tensor, count: int) -> Tensor:
    if parameter.grad is None:
        raise ValueError("a parameter has no gradient to grow by")
    mask = mask.clone()
    score = torch.where(mask == 0, parameter.grad.clone().abs(), -1.0)
    _, order = torch.sort(score.flatten(), descending=True, stable=True)
    mask.view(-1)[order[:count]] = 1.0
    return mask
