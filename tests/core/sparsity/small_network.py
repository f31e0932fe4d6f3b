"""A small network under a method, with gradients drawn anew for every update."""

from __future__ import annotations

import torch
from torch import nn

from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.method import Decision, SparsityMethod
from pals_core.sparsity.registry import build_method
from pals_core.spec import Spec

EPOCHS, STEPS_PER_EPOCH = 6, 10


class Bench:
    """Two layers of unequal size: 2000 and, unless asked otherwise, 300 weights; updates every 5 of 60 steps."""

    def __init__(self, method: str, *, outputs: int = 6, **fields: object) -> None:
        torch.manual_seed(0)
        interval = {} if method == "static" else {"update_interval": 5}
        self.spec = Spec.model_validate(
            {
                "data": {"horizon": 1},
                "method": {"name": method} | interval | fields,
                "training": {"epochs": EPOCHS, "seed": 7},
            }
        )
        self.network = nn.Sequential(nn.Linear(40, 50), nn.Linear(50, outputs))
        self.masks = MaskSet(self.network.named_parameters())
        self.method: SparsityMethod = build_method(self.spec, self.masks, STEPS_PER_EPOCH)
        self.masks.apply()
        self.gradients = torch.Generator().manual_seed(1)

    def step(self, step: int) -> Decision | None:
        """One training step without its optimiser: new gradients, then the update if there is one."""
        for parameter in self.network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=self.gradients)
        decision = self.method.decide(step, never_measured)
        if decision is not None:
            self.method.update(decision)
            self.masks.apply()
        return decision

    def steps(self, first: int = 1, last: int = EPOCHS * STEPS_PER_EPOCH) -> list[Decision]:
        decisions = [self.step(step) for step in range(first, last + 1)]
        return [decision for decision in decisions if decision is not None]

    @property
    def copies(self) -> dict[str, torch.Tensor]:
        return {name: self.masks[name].clone() for name in self.masks}


def never_measured() -> float:
    raise AssertionError("the loss was measured without need")
