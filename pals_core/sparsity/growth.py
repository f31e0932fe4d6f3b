"""By what inactive weights are chosen to grow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from pals_core.sparsity.masks import MaskSet
from pals_core.spec import Growth

MOMENTUM = 0.9


class GrowthScores(Protocol):
    """A score for every weight; those of the largest magnitude grow first."""

    def observe(self) -> None:
        """Take note of this step's gradients."""

    def __call__(self, name: str) -> Tensor:
        """Return the scores of one parameter, in its shape; raises ValueError when there is no gradient to go by."""

    def state_tensors(self) -> Mapping[str, Tensor]: ...

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None: ...


def growth_scores(growth: Growth, masks: MaskSet, generator: torch.Generator) -> GrowthScores:
    """Return the scores of a criterion; random ones are drawn with `generator` (of the CPU)."""
    if growth is Growth.RANDOM:
        return RandomScores(masks, generator)
    return MomentumScores(masks) if growth is Growth.MOMENTUM else GradientScores(masks)


class GradientScores:
    """The gradient of this step's minibatch (RigL, arXiv 1911.11134)."""

    def __init__(self, masks: MaskSet) -> None:
        self._masks = masks

    def observe(self) -> None:
        """Nothing to note: the gradient is still there when weights grow."""

    def __call__(self, name: str) -> Tensor:
        return gradient_of(self._masks, name)

    def state_tensors(self) -> Mapping[str, Tensor]:
        return {}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        pass


class MomentumScores:
    """The exponential average of the dense gradients, m ← 0.9·m + 0.1·g (after arXiv 1907.04840).

    Kept apart from the optimiser's, whose moments of inactive weights are zero; as large as the maskable weights.
    """

    def __init__(self, masks: MaskSet) -> None:
        self._masks = masks
        self._averages = {name: torch.zeros_like(masks.parameter(name), requires_grad=False) for name in masks}

    @torch.no_grad()
    def observe(self) -> None:
        for name, average in self._averages.items():
            average.lerp_(gradient_of(self._masks, name), 1 - MOMENTUM)

    def __call__(self, name: str) -> Tensor:
        return self._averages[name]

    def state_tensors(self) -> Mapping[str, Tensor]:
        return {f"momentum.{name}": average for name, average in self._averages.items()}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        for name, average in self._averages.items():
            average.copy_(tensors[f"momentum.{name}"])


class RandomScores:
    """Numbers drawn anew at every update, alike on every device (SET, Mocanu et al. 2018)."""

    def __init__(self, masks: MaskSet, generator: torch.Generator) -> None:
        self._masks = masks
        self._generator = generator

    def observe(self) -> None:
        """Nothing to note: gradients do not matter."""

    def __call__(self, name: str) -> Tensor:
        mask = self._masks[name]
        return torch.rand(mask.shape, dtype=torch.float64, generator=self._generator).to(mask.device)

    def state_tensors(self) -> Mapping[str, Tensor]:
        return {"generator": self._generator.get_state()}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self._generator.set_state(tensors["generator"])


def gradient_of(masks: MaskSet, name: str) -> Tensor:
    """Return a parameter's dense gradient; raises ValueError without one."""
    gradient = masks.parameter(name).grad
    if gradient is None:
        raise ValueError(f"{name} has no gradient to grow by")
    return gradient
