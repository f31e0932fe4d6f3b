"""The fastest kernel for each linear layer of a trained network, by measurement on this machine.

Shapes: B batch, N rows that a layer is given at once, H horizon, C columns.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pals_core.kernels.blocks import InBFloat16, blocks_of
from pals_core.kernels.linear import MAKERS, FixedLinear, Kernel, available
from pals_core.kernels.report import KernelReport, LayerKernel
from pals_core.layers.feed_forward import FeedForward


class Kernels(StrEnum):
    """What a forecaster may compute with."""

    TORCH = "torch"  # PyTorch's dense fp32 products, as the training's evaluation has them
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
    forecasts are those of `model` but for rounding; it is left alone. With `auto` the layers of attention and
    feed-forward compute wholly in bfloat16 where the network is faster so. bfloat16 and int8 are given up where they
    change the forecasts, [B, H, C] in scaled units, by a mean square above `largest_change`, and everything is where
    the network is not faster.
    """
    network = _Network(model, inputs, dense(*inputs))
    for allowed in _ALLOWED[kernels]:
        chosen = network.choose(allowed)
        if allowed is _IN_FP32 or chosen.change <= largest_change:
            break
    if kernels is Kernels.AUTO and network.blocks and available(Kernel.BF16):
        wholly = network.choose(_ALLOWED[kernels][0], wholly_bfloat16=True)
        if wholly.change <= largest_change and network.is_faster(wholly, chosen):
            chosen = wholly
    network.use(chosen)
    seconds, dense_seconds = _best_of_both(lambda: model(*inputs), lambda: dense(*inputs))
    if seconds >= dense_seconds:
        chosen, seconds = network.as_it_was([_left_dense(row) for row in chosen.rows]), dense_seconds
        network.use(chosen)
    blocks = tuple(network.blocks) if chosen.wholly_bfloat16 else ()
    return KernelReport(
        len(inputs[0]), tuple(chosen.rows), dense_seconds * 1e6, seconds * 1e6, network.change(), blocks
    )


@dataclass(frozen=True)
class _Chosen:
    """What takes the place of a network's layers; `change` is the mean square by which its forecasts differ."""

    layers: Mapping[str, nn.Module]
    rows: Sequence[LayerKernel]
    change: float
    wholly_bfloat16: bool = False


class _Network:
    """A network whose layers are taken out and put in; as it is given to begin with, and as `use` leaves it."""

    def __init__(self, model: nn.Module, inputs: Sequence[Tensor], expected: Tensor) -> None:
        self.blocks = blocks_of(model)
        self._model, self._inputs, self._expected = model, inputs, expected
        self._in_bfloat16 = InBFloat16(self.blocks)
        modules = dict(model.named_modules())
        self._linears = {name: module for name, module in modules.items() if isinstance(module, nn.Linear)}
        self._feed_forwards = {name: module for name, module in modules.items() if isinstance(module, FeedForward)}
        activations = {f"{name}.activation": pair.activation for name, pair in self._feed_forwards.items()}
        self._originals = {**self._linears, **activations}
        self._stopwatch = _Stopwatch()

    def choose(self, allowed: Sequence[Kernel], *, wholly_bfloat16: bool = False) -> _Chosen:
        """Choose each layer's kernel, put them in and see what that changes."""
        self.use(self.as_it_was([]))
        within = tuple(f"{name}." for name in self.blocks) if wholly_bfloat16 else ()
        rounded = {name for name in self._linears if name.startswith(within)}
        measured = {
            name: linear
            for name, linear in self._linears.items()
            if name in rounded or linear.weight.numel() >= _FEWEST_WEIGHTS
        }
        usable = [kernel for kernel in allowed if available(kernel)]
        choices = _choices(self._model, measured, rounded, self._inputs, usable, self._stopwatch)
        layers = {name: choice.layer for name, choice in choices.items()}
        rows = [choice.measured for choice in choices.values()]
        chosen = _Chosen({**layers, **self._activations_taken_by(layers)}, rows, 0.0, wholly_bfloat16)
        self.use(chosen)
        return replace(chosen, change=self.change())

    def _activations_taken_by(self, layers: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        """Have the first layers of feed-forward pairs compute the activation too, where a kernel is in their place."""
        taken: dict[str, nn.Module] = {}
        for name in self._feed_forwards:
            if isinstance(expand := layers.get(f"{name}.expand"), FixedLinear):
                expand.activation = "gelu"
                taken[f"{name}.activation"] = nn.Identity()
        return taken

    def as_it_was(self, rows: Sequence[LayerKernel]) -> _Chosen:
        return _Chosen({}, rows, 0.0)

    def use(self, chosen: _Chosen) -> None:
        self._in_bfloat16.stop()
        _put(self._model, {**self._originals, **chosen.layers})
        if chosen.wholly_bfloat16:
            self._in_bfloat16.start()

    def change(self) -> float:
        return float((self._model(*self._inputs) - self._expected).square().mean())

    def is_faster(self, first: _Chosen, second: _Chosen) -> bool:
        """Return whether the network is faster with the first choice; it is left with either."""

        def run() -> object:
            return self._model(*self._inputs)

        seconds, others = _best_of_both(run, run, before=(lambda: self.use(first), lambda: self.use(second)))
        return seconds < others


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
        shape = (*linear.weight.shape, linear.bias is None, len(x), x.dtype)
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
        single = x.float()
        return lambda: F.linear(single, linear.weight, linear.bias)
    layer = MAKERS[kernel](linear)
    return lambda: layer(x)


def _choices(
    model: nn.Module,
    linears: Mapping[str, nn.Linear],
    rounded: Collection[str],
    inputs: Sequence[Tensor],
    allowed: Sequence[Kernel],
    stopwatch: _Stopwatch,
) -> dict[str, _Choice]:
    """Choose for each layer on what reaches it first in a pass through the dense `model`, some in bfloat16."""
    chosen: dict[str, _Choice] = {}

    def choosing(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def choose(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if name not in chosen:
                x = arguments[0].bfloat16() if name in rounded else arguments[0]
                chosen[name] = _choose(name, linears[name], x, allowed, stopwatch)

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
    # PyTorch's product in fp32 does not take bfloat16.
    best, seconds = (Kernel.DENSE, dense_seconds / _LEAST_GAIN) if x.dtype == torch.float32 else (Kernel.BF16, math.inf)
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
    expected = F.linear(x.float(), linear.weight, linear.bias)
    error = float((layer(x) - expected).abs().max() / expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny))
    return _Choice(layer, replace(plain, kernel=best, microseconds=seconds * 1e6, max_error=error, bytes=layer.nbytes))


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


def _best_of_both(
    first: Callable[[], object],
    second: Callable[[], object],
    before: tuple[Callable[[], None], Callable[[], None]] = (lambda: None, lambda: None),
) -> tuple[float, float]:
    """Return seconds of each, run in turns so that what else happens on the machine meets both.

    What comes `before` each is not measured.
    """
    of_first: list[float] = []
    of_second: list[float] = []
    while len(of_first) < _FEWEST_RUNS or (sum(of_second) < 2 * _SECONDS and len(of_first) < _MOST_RUNS):
        for call, found, prepare in ((first, of_first, before[0]), (second, of_second, before[1])):
            prepare()
            found.append(_timed(call))
    return min(of_first), min(of_second)


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
