"""The optimiser of a training, and what is done to gradients before it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pals_core.sparsity.masks import MaskSet
from pals_core.spec import Optimizer, TrainingSpec

WEIGHT_DECAY = 0.01


def make_optimizer(model: nn.Module, recipe: TrainingSpec) -> torch.optim.Optimizer:
    """Return Adam (arXiv 1412.6980) or AdamW (arXiv 1711.05101) over all parameters."""
    # The fused step knows no complex weights, which Fourier blocks have.
    groups: list[dict[str, Any]] = [{"params": [weight for weight in model.parameters() if not weight.is_complex()]}]
    if of_complex := [weight for weight in model.parameters() if weight.is_complex()]:
        groups.append({"params": of_complex, "fused": False})
    if recipe.optimizer is Optimizer.ADAM:
        return torch.optim.Adam(groups, lr=recipe.learning_rate, fused=True)
    decay = WEIGHT_DECAY if recipe.weight_decay is None else recipe.weight_decay
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=decay, fused=True)


@torch.no_grad()
def clip_gradients(model: nn.Module, masks: MaskSet, largest_norm: float) -> None:
    """Scale all gradients so that the norm of those of the active weights is at most `largest_norm`.

    Inactive weights have gradients too, to grow by, but no step follows them; so they do not count.
    """
    maskable = set(masks)
    followed = [
        parameter.grad * masks[name] if name in maskable else parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    ]
    norm = torch.nn.utils.get_total_norm(followed)
    torch.nn.utils.clip_grads_with_norm_(model.parameters(), largest_norm, norm)
