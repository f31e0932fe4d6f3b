"""A network's forward pass in the arithmetic of a training."""

from __future__ import annotations

import importlib.util
import os
import shutil
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from pals_core.data.windows import Batch
from pals_core.processor import has_avx512_of, multiplies_bf16
from pals_core.spec import Compilation, EncoderSpec, Precision, Spec
from pals_core.training.arithmetic import Arithmetic, Products
from pals_core.training.products import LinearLayersByOneDnn, choose_products

# From this width on, what bfloat16 saves in matrix products exceeds the cost of rounding (docs/benchmarks.md).
NARROWEST_IN_BF16 = 64


def choose_arithmetic(spec: Spec, device: torch.device) -> Arithmetic:
    """Return what the spec asks for, and for `auto` what is faster for this model on this device.

    A rule, not a measurement, so that the same training on the same machine always ends alike. bfloat16 pays for
    transformers where the hardware multiplies faster in it; compiling pays on a GPU, if Triton is installed and has a C
    compiler to work with, and not on a CPU (docs/benchmarks.md).
    """
    precision = spec.training.precision
    if precision is Precision.AUTO:
        wide = isinstance(spec.model, EncoderSpec) and spec.model.d_model >= NARROWEST_IN_BF16
        precision = Precision.BF16 if wide and gains_by_bf16(device) else Precision.FP32
    compiles = spec.training.compile is Compilation.AUTO and device.type == "cuda" and _can_compile()
    products = choose_products(device) if precision is Precision.FP32 else Products.TORCH
    return Arithmetic(precision, compiles, products)


def gains_by_bf16(device: torch.device) -> bool:
    """Return whether the hardware multiplies matrices of bfloat16 faster than of single precision.

    AMD's processors do with AVX-512; Intel's, which have no more instructions for it than for single precision there,
    need AMX.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_amx_tile_supported() or (multiplies_bf16() and has_avx512_of("AMD"))


def _can_compile() -> bool:
    # Triton comes with torch for GPUs, and needs the compiler that CC names, or else gcc or clang.
    named = os.environ.get("CC")
    compilers = [named] if named else ["gcc", "clang"]
    return importlib.util.find_spec("triton") is not None and any(map(shutil.which, compilers))


class ForwardPass:
    """Forecasts of a network over batches, in single precision whatever the arithmetic inside.

    Only steps of training are compiled, whose batches are of one size. How a compiler treats another one depends on
    those that came before, which a resumed training has not seen.
    """

    def __init__(self, model: nn.Module, device: torch.device, arithmetic: Arithmetic) -> None:
        self.model = model
        self._in_training = torch.compile(model) if arithmetic.compiled else model
        self._device_type = device.type
        self._in_bf16 = arithmetic.precision is Precision.BF16
        self._by_onednn = arithmetic.products is Products.ONEDNN

    def __call__(self, batch: Batch) -> Tensor:
        """Return the forecasts, [B, H, C] in scaled units."""
        products = LinearLayersByOneDnn() if self._by_onednn else nullcontext()
        run = self._in_training if self.model.training else self.model
        try:
            with torch.autocast(self._device_type, torch.bfloat16, enabled=self._in_bf16), products:
                forecast: Tensor = run(batch.x_enc, batch.x_mark_enc, batch.x_dec, batch.x_mark_dec)
        finally:
            # Within a context of the caller's, torch would keep the rounded weights, and take them for the next ones.
            torch.clear_autocast_cache()
        return forecast.float()
