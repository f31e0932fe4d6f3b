"""FLOPs of one forecast, counted from the operations of a forward pass.

A multiply–add counts as 2 FLOPs, a complex one as 8 (4 products and 4 sums of reals). A Fourier transform of N complex
values counts as 5·N·log₂ N, one between N real values and their spectrum as half of that (the convention of FFTW's
benchmarks, https://www.fftw.org/speed/method.html). Element-wise work, such as activations, norms, softmax, biases,
moving averages and the product of two spectra, is not counted, as usual.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from pals_core.checkpoint.header import Product, ProductKind
from pals_core.sparsity.masks import is_maskable

_TRANSFORMS = (torch.ops.aten._fft_r2c, torch.ops.aten._fft_c2r, torch.ops.aten._fft_c2c)
_COMPLEX = 4  # times as many FLOPs as of reals
_WHOLE_MODEL = "forecaster"


@dataclass(frozen=True)
class FlopCount:
    """FLOPs of one forecast of a dense network.

    `of_weights`: by name of the maskable parameter, over all its uses, a shared one having several. Each element of a
    parameter multiplies equally often, so with a share of them on it costs that share. `products` have no weight in
    them.
    """

    of_weights: Mapping[str, int]
    products: tuple[Product, ...]


@torch.no_grad()
def count_flops(model: nn.Module, inputs: Sequence[Tensor]) -> FlopCount:
    """Count a forward pass of `model` in evaluation mode on the first sample of `inputs`, each [B, …].

    The pass is that of a copy on tensors that have a shape and no values: it takes no memory and nearly no time, draws
    no random numbers and leaves the model alone. No model needs code for it; an operation counts for the maskable
    parameter among its operands, and for the module it happens in when there is none.
    """
    shapes = _without_values(model).eval()
    tally = _Tally({name: weight for name, weight in shapes.named_parameters() if is_maskable(name, weight)})
    _name_running_modules(shapes, tally.running)
    with tally, _EinsteinSums(tally):
        shapes(*(torch.empty_like(value[:1], device="meta") for value in inputs))
    products = (Product(module=module, kind=kind, flops=flops) for (module, kind), flops in tally.products.items())
    return FlopCount(tally.of_weights, tuple(products))


def _without_values(model: nn.Module) -> nn.Module:
    """Return a copy whose parameters and buffers have their shapes alone; what is shared in one is in the other."""
    copies = {id(tensor): torch.empty_like(tensor, device="meta") for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, copies)


def _name_running_modules(model: nn.Module, running: list[str]) -> None:
    """Have the model keep the names of the modules whose forward pass is under way, the innermost last."""

    def enter(name: str) -> Any:
        return lambda *_: running.append(name)

    def leave(*_: Any) -> None:
        running.pop()

    for name, module in model.named_modules():
        module.register_forward_pre_hook(enter(name or _WHOLE_MODEL))
        module.register_forward_hook(leave)


class _Tally(TorchDispatchMode):
    """Counts the operations that run inside of it, for the weight that takes part or the module that is running."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.of_weights = dict.fromkeys(weights, 0)
        self.products: Counter[tuple[str, ProductKind]] = Counter()
        self.running: list[str] = []
        self.within_sum = False
        # A view of a weight has its storage; a copy is entered under its own, and kept so that no other tensor gets it.
        self._names = {_storage(weight): name for name, weight in weights.items()}
        self._copies: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.within_sum:
            return result
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        weights = self._weights_among(operands)
        operation = func.overloadpacket
        if operation in flop_registry:
            flops = flop_registry[operation](*args, **kwargs, out_val=result)
            self._add(weights, ProductKind.MATRIX, flops * _per_real(result))
        elif operation in _TRANSFORMS:
            self._add(set(), ProductKind.FOURIER, _transform_flops(operands[0], result, args[1]))
        elif weights and len(operands) == 1 and isinstance(result, Tensor) and _storage(result) not in self._names:
            self._names[_storage(result)] = weights.pop()
            self._copies.append(result)
        return result

    def add_sum(self, equation: str, operands: Sequence[Tensor], result: Tensor) -> None:
        """Count an Einstein sum of two tensors: a multiply–add for every combination of its indices."""
        indices = equation.replace(" ", "").partition("->")[0].split(",")
        sizes = {
            index: size
            for names, operand in zip(indices, operands, strict=True)
            for index, size in zip(names, operand.shape, strict=True)
        }
        flops = 2 * math.prod(sizes.values()) * _per_real(result)
        self._add(self._weights_among(operands), ProductKind.MATRIX, flops)

    def _weights_among(self, operands: Iterable[Tensor]) -> set[str]:
        return {self._names[key] for operand in operands if (key := _storage(operand)) in self._names}

    def _add(self, weights: set[str], kind: ProductKind, flops: int) -> None:
        if len(weights) == 1:
            self.of_weights[weights.pop()] += flops
        else:
            self.products[self.running[-1], kind] += flops


class _EinsteinSums(TorchFunctionMode):
    """Has Einstein sums of two tensors counted by their indices.

    What they are computed by depends on the lengths of these: over an axis of length one it is no matrix product.
    """

    def __init__(self, tally: _Tally) -> None:
        super().__init__()
        self.tally = tally

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.einsum or len(args) != 3:
            return func(*args, **(kwargs or {}))
        self.tally.within_sum = True
        try:
            result = func(*args)
        finally:
            self.tally.within_sum = False
        equation, *operands = args
        self.tally.add_sum(equation, operands, result)
        return result


def _storage(tensor: Tensor) -> int:
    """What a tensor and its views have in common; tensors without values have no address."""
    storage: int = tensor.untyped_storage()._cdata
    return storage


def _per_real(result: Tensor) -> int:
    return _COMPLEX if result.is_complex() else 1


def _transform_flops(source: Tensor, result: Tensor, axes: Sequence[int]) -> int:
    signal = source if result.is_complex() else result  # the real side, where there is one
    length = math.prod(signal.shape[axis] for axis in axes)
    per_value = (5 if signal.is_complex() else 2.5) * math.log2(length)
    return round(signal.numel() * per_value)
