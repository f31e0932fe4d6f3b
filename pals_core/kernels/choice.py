"""The fastest kernel for each linear layer of a trained network, by measurement on this machine.

Shapes: B batch, N rows that a layer is given at once, H horizon, C columns.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pals_core.kernels.linear import MAKERS, FixedLinear, Kernel, available
from pals_core.kernels.report import KernelReport, LayerKernel
from pals_core.layers.feed_forward import FeedForward


class Kernels(StrEnum):
    """What a forecaster may compute with."""

    TORCH = "torch"  # PyTorch's dense fp32 products: forecasts are bit for bit those of the training's evaluation
    FP32 = "fp32"  # the fastest in single precision: forecasts differ by rounding
    AUTO = "auto"  # the fastest, bfloat16 and int8 too, as long as forecasts hardly change


_IN_FP32 = (Kernel.PACKED, Kernel.CSR)
# What may be used beside PyTorch's product; the next where forecasts change too much.
_ALLOWED = {
    Kernels.FP32: (_IN_FP32,),
    Kernels.AUTO: ((*_IN_FP32, Kernel.BF16, Kernel.INT8), (*_IN_FP32, Kernel.BF16), _IN_FP32),
}
# Below this many weights a call costs more than its arithmetic.
_FEWEST_WEIGHTS = 2**12
# Above this density the sparse product is nowhere the fastest, and its weights take more memory than dense ones.
_DENSEST_CSR = 0.35
# More rows than these take proportionally longer.
_MOST_ROWS = 2048
# What is measured to be better by less may be noise.
_LEAST_GAIN = 1.1
# In a network a layer's weights have left the nearest caches when its turn comes again.
_BYTES_OF_OTHER_LAYERS = 2**23
_SECONDS, _FEWEST_RUNS, _MOST_RUNS = 0.03, 3, 25


@torch.inference_mode()
def choose_kernels(
    model: nn.Module, dense: nn.Module, inputs: Sequence[Tensor], kernels: Kernels, largest_change: float
) -> KernelReport:
    """Give each linear layer of `model`, in evaluation mode, the kernel that is fastest for `inputs`, in place.

    `inputs`, each [B, …], are a batch of the size that will be forecast. `dense` is the network to compare with, whose
    forecasts are those of `model` but for rounding; it is left alone. bfloat16 and int8 are given up where they change
    the forecasts, [B, H, C] in scaled units, by a mean square above `largest_change`, and everything is where the
    network is not faster.
    """
    expected = dense(*inputs)
    stopwatch = _Stopwatch()
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight.numel() >= _FEWEST_WEIGHTS
    }

    feed_forwards = {name: module for name, module in model.named_modules() if isinstance(module, FeedForward)}
    originals = {**linears, **{f"{name}.activation": pair.activation for name, pair in feed_forwards.items()}}

    def squared_change() -> float:
        return float((model(*inputs) - expected).square().mean())

    for allowed in _ALLOWED[kernels]:
        _put(model, originals)
        chosen = _choices(model, linears, inputs, [kernel for kernel in allowed if available(kernel)], stopwatch)
        _put(model, {name: choice.layer for name, choice in chosen.items()})
        _take_activations(feed_forwards)
        change = squared_change()
        if allowed is _IN_FP32 or change <= largest_change:
            break
    seconds, dense_seconds = _best_of_both(lambda: model(*inputs), lambda: dense(*inputs))
    rows = [choice.measured for choice in chosen.values()]
    if seconds >= dense_seconds:
        _put(model, originals)
        seconds, change = dense_seconds, squared_change()
        rows = [_left_dense(row) for row in rows]
    return KernelReport(len(inputs[0]), tuple(rows), dense_seconds * 1e6, seconds * 1e6, change)


@dataclass(frozen=True)
class _Choice:
    layer: nn.Module
    measured: LayerKernel


class _Stopwatch:
    """Measures products, those of equal shape once."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[object, ...], float] = {}
        self._other_layers = torch.empty(_BYTES_OF_OTHER_LAYERS, dtype=torch.uint8)

    def seconds(self, kernels: Sequence[Kernel], linear: nn.Linear, density: float, x: Tensor) -> dict[Kernel, float]:
        """Return the best run of each kernel; they run in turns, so that what disturbs one disturbs the others too."""
        shape = (*linear.weight.shape, linear.bias is None, len(x))
        keys = {kernel: (kernel, *shape, round(density, 2) if kernel is Kernel.CSR else None) for kernel in kernels}
        calls = {key: _call(kernel, linear, x) for kernel, key in keys.items() if key not in self._seconds}
        for key, call in calls.items():
            call()  # the first call makes what the others use
            self._seconds[key] = math.inf
        spent, runs = 0.0, 0
        while runs < _FEWEST_RUNS or (spent < _SECONDS * len(calls) and runs < _MOST_RUNS):
            for key, call in calls.items():
                self._other_layers.zero_()
                seconds = _timed(call)
                self._seconds[key] = min(seconds, self._seconds[key])
                spent += seconds
            runs += 1
        return {kernel: self._seconds[key] for kernel, key in keys.items()}


def _call(kernel: Kernel, linear: nn.Linear, x: Tensor) -> Callable[[], Tensor]:
    if kernel is Kernel.DENSE:
        return lambda: F.linear(x, linear.weight, linear.bias)
    layer = MAKERS[kernel](linear)
    return lambda: layer(x)


def _choices(
    model: nn.Module,
    linears: Mapping[str, nn.Linear],
    inputs: Sequence[Tensor],
    allowed: Sequence[Kernel],
    stopwatch: _Stopwatch,
) -> dict[str, _Choice]:
    """Choose for each layer on what reaches it first in a pass through the dense `model`."""
    chosen: dict[str, _Choice] = {}

    def choosing(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def choose(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if name not in chosen:
                chosen[name] = _choose(name, linears[name], arguments[0], allowed, stopwatch)

        return choose

    hooks = [linear.register_forward_pre_hook(choosing(name)) for name, linear in linears.items()]
    model(*inputs)
    for hook in hooks:
        hook.remove()
    return chosen


def _choose(name: str, linear: nn.Linear, inputs: Tensor, allowed: Sequence[Kernel], stopwatch: _Stopwatch) -> _Choice:
    x = inputs.reshape(-1, linear.in_features)[:_MOST_ROWS].contiguous()
    density = float(linear.weight.count_nonzero()) / linear.weight.numel()

    tried = [kernel for kernel in allowed if kernel is not Kernel.CSR or density <= _DENSEST_CSR]
    measured = stopwatch.seconds([Kernel.DENSE, *tried], linear, density, x)
    dense_seconds = measured[Kernel.DENSE]
    best, seconds = Kernel.DENSE, dense_seconds / _LEAST_GAIN
    for kernel in tried:
        if measured[kernel] < seconds:
            best, seconds = kernel, measured[kernel]
    plain = LayerKernel(
        layer=name,
        inputs=linear.in_features,
        outputs=linear.out_features,
        rows=len(x),
        density=density,
        kernel=Kernel.DENSE,
        dense_microseconds=dense_seconds * 1e6,
        microseconds=dense_seconds * 1e6,
        max_error=0.0,
        bytes=linear.weight.nbytes,
    )
    if best is Kernel.DENSE:
        return _Choice(linear, plain)
    layer = MAKERS[best](linear)
    expected = F.linear(x, linear.weight, linear.bias)
    error = float((layer(x) - expected).abs().max() / expected.abs().max().clamp_min(torch.finfo(x.dtype).tiny))
    return _Choice(layer, replace(plain, kernel=best, microseconds=seconds * 1e6, max_error=error, bytes=layer.nbytes))


def _take_activations(feed_forwards: Mapping[str, FeedForward]) -> None:
    """Have the first layers of feed-forward pairs compute the activation too, where a kernel has taken their place."""
    for pair in feed_forwards.values():
        if isinstance(pair.expand, FixedLinear):
            pair.expand.activation = "gelu"
            pair.activation = nn.Identity()


def _left_dense(row: LayerKernel) -> LayerKernel:
    return replace(
        row,
        kernel=Kernel.DENSE,
        microseconds=row.dense_microseconds,
        max_error=0.0,
        bytes=4 * row.inputs * row.outputs,
    )


def _put(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    for name, layer in layers.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)


def _best_of_both(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Return seconds of each, run in turns so that what else happens on the machine meets both."""
    of_first: list[float] = []
    of_second: list[float] = []
    while len(of_first) < _FEWEST_RUNS or (sum(of_second) < 2 * _SECONDS and len(of_first) < _MOST_RUNS):
        of_first.append(_timed(first))
        of_second.append(_timed(second))
    return min(of_first), min(of_second)


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
