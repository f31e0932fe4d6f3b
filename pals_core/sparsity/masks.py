"""One boolean mask per maskable parameter; the only code that masks weights and their moments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from pals_core.sparsity.tensor_threads import elements, tensor_of


def is_maskable(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter has a mask: two or more axes, and no bias (one per column has two axes too)."""
    return parameter.ndim >= 2 and name.rpartition(".")[2] != "bias"


class MaskSet:
    """The masks of a network: every parameter with two or more axes has one, biases and norms have none.

    Starts dense. Parameters are told apart by name; `named_parameters()` of a module lists a shared
    one once, so it counts once.
    """

    def __init__(self, parameters: Iterable[tuple[str, Parameter]]) -> None:
        everything = dict(parameters)
        self.total_parameters = sum(parameter.numel() for parameter in everything.values())
        self._parameters = {name: parameter for name, parameter in everything.items() if is_maskable(name, parameter)}
        self._masks = {
            name: torch.ones_like(parameter, dtype=torch.bool) for name, parameter in self._parameters.items()
        }
        self.maskable_parameters = sum(mask.numel() for mask in self._masks.values())
        self._active = {name: parameter.numel() for name, parameter in self._parameters.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    @property
    def device(self) -> torch.device:
        return next((mask.device for mask in self._masks.values()), torch.device("cpu"))

    def parameter(self, name: str) -> Parameter:
        return self._parameters[name]

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __setitem__(self, name: str, mask: Tensor) -> None:
        """Replace one mask; weights change only at the next `apply`."""
        if mask.shape != self._masks[name].shape or mask.dtype != torch.bool:
            raise ValueError(f"the mask of {name} must be boolean of shape {tuple(self._masks[name].shape)}")
        self._masks[name] = mask.to(self._masks[name].device)
        # On a processor numpy counts four times as fast as torch.
        self._active[name] = int(np.count_nonzero(mask.numpy()) if mask.device.type == "cpu" else mask.sum())

    def now(self) -> Mapping[str, Tensor]:
        """The masks as they are; changes, which replace masks, leave these alone."""
        return dict(self._masks)

    @torch.no_grad()
    def apply(self, optimizer: Optimizer | None = None, before: Mapping[str, Tensor] | None = None) -> None:
        """Set inactive weights to zero, and their moments in `optimizer`, so that regrown ones start afresh.

        With the masks of `before` a change, weights that were inactive then start at zero too: the step before the
        change may have moved them.
        """
        for name, mask in self._masks.items():
            parameter = self._parameters[name]
            if before is not None and before[name] is not mask:
                mask = tensor_of(elements(mask) & elements(before[name]))
            elif self._active[name] == parameter.numel():
                continue
            # Converted once for the three products.
            factors = _ones_and_zeros(mask).to(parameter.dtype)
            # A negative weight times 0 is −0.0, whose sign a file of active weights alone could not give back.
            parameter.mul_(factors).add_(0.0)
            if optimizer is None:
                continue
            for moment in optimizer.state.get(parameter, {}).values():
                if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                    moment.mul_(factors)

    @torch.no_grad()
    def apply_to_gradients(self) -> None:
        """Set the gradients of inactive weights to zero; an optimiser step then leaves their weights and moments at 0.

        After `apply` with the optimiser this does for a step what `apply` would do after it, in a third of the time.
        """
        for name, mask in self._masks.items():
            parameter = self._parameters[name]
            if parameter.grad is not None and self._active[name] < parameter.numel():
                parameter.grad.mul_(_ones_and_zeros(mask))

    def start_sparse(self, active: Mapping[str, int], generator: torch.Generator) -> None:
        """Switch on `active[name]` weights of each tensor, drawn with `generator` (of the CPU)."""
        for name, mask in self._masks.items():
            chosen = torch.randperm(mask.numel(), generator=generator)[: active[name]]
            flat = torch.zeros(mask.numel(), dtype=torch.bool)
            flat[chosen] = True
            self[name] = flat.view(mask.shape)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(mask.shape) for name, mask in self._masks.items()}

    @property
    def active(self) -> dict[str, int]:
        """Active weights of each tensor."""
        return dict(self._active)

    @property
    def inactive_parameters(self) -> int:
        return self.maskable_parameters - sum(self._active.values())

    @property
    def sparsity(self) -> float:
        """Share of maskable weights that are off: S = 1 − active/maskable."""
        return self.inactive_parameters / self.maskable_parameters

    @property
    def share_of_all_parameters(self) -> float:
        """Share of all parameters, biases and norms included, that are off."""
        return self.inactive_parameters / self.total_parameters

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over saved masks; raises ValueError unless they fit exactly. Weights change at the next `apply`."""
        if set(state) != set(self._masks):
            raise ValueError(f"masks are for other parameters: {sorted(set(state) ^ set(self._masks))}")
        for name, mask in state.items():
            self[name] = mask


def _ones_and_zeros(mask: Tensor) -> Tensor:
    """The mask as whole numbers of one byte: a product with them is vectorised, one with booleans is not."""
    return mask.view(torch.int8)
