"""Ways to compute a trained linear layer on a CPU, each a module that takes the place of an `nn.Linear`.

Shapes: N rows, I inputs, O outputs; a module maps [..., I] to [..., O], float32 or bfloat16 to the same.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pals_core.processor import multiplies_bf16
from pals_core.training.products import has_onednn, linear_by_onednn

# The product of a sparse matrix and a dense one is fastest while the dense one's columns stay in the nearest cache.
_ROWS_AT_ONCE = 64
# 255 steps of an unsigned byte, less what keeps the largest number from being rounded to the 256th.
_LEVELS = 254.9
_SMALLEST_SCALE = 1e-30


class Kernel(StrEnum):
    """How a linear layer is computed."""

    DENSE = "dense"  # as PyTorch does: fp32, zeros included
    PACKED = "packed"  # fp32, zeros included, the weights laid out for oneDNN beforehand
    CSR = "csr"  # fp32, active weights alone
    BF16 = "bf16"  # zeros included, products of bfloat16 summed in fp32
    INT8 = "int8"  # zeros included, weights with a scale for each output, inputs with one for all of a call


class FixedLinear(nn.Module):
    """A linear layer for inference alone, and the activation that follows it; its weights are no parameters."""

    nbytes: int  # of the weights, without the bias
    activation: Literal["none", "gelu"] = "none"  # gelu is the exact one

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = None if linear.bias is None else linear.bias.detach()


class PackedLinear(FixedLinear):
    """The dense product by oneDNN in fp32; differs from PyTorch's by the order of its sums."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous())
        self.nbytes = linear.weight.nbytes

    def forward(self, x: Tensor) -> Tensor:
        return linear_by_onednn(x.float(), self.weight, self.bias, self.activation).to(x.dtype)


class BFloat16Linear(FixedLinear):
    """The dense product by oneDNN; inputs, weights and outputs are rounded to bfloat16, sums are not."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        weight = linear.weight.detach().bfloat16()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.nbytes = weight.nbytes
        self.bias = None if self.bias is None else self.bias.bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return linear_by_onednn(x.bfloat16(), self.weight, self.bias, self.activation).to(x.dtype)


class Int8Linear(FixedLinear):
    """The dense product of whole numbers by oneDNN: one scale for each output's weights, one for all of an input.

    Weights are rounded to 255 steps around zero, inputs to 256 between the smallest and the largest of the call, so
    that an output depends a little on what else is in the batch. Not finite inputs give NaN.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        weight = linear.weight.detach()
        self.scales = (weight.abs().amax(dim=1) / 127).clamp_min(_SMALLEST_SCALE)
        steps = (weight / self.scales.unsqueeze(1)).round().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(steps, None)
        self.zero_points = torch.zeros(self.out_features, dtype=torch.int32)
        self.nbytes = steps.nbytes + self.scales.nbytes

    def forward(self, x: Tensor) -> Tensor:
        lowest, highest = (float(bound) for bound in torch.aminmax(x))
        scale = max((max(highest, 0.0) - min(lowest, 0.0)) / _LEVELS, _SMALLEST_SCALE)
        if not math.isfinite(lowest) or not math.isfinite(highest):
            return x.new_full((*x.shape[:-1], self.out_features), math.nan)
        zero_point = round(-min(lowest, 0.0) / scale)
        # Truncated to a byte, what is half a step higher is rounded; in bfloat16 half a step would be lost.
        steps = torch.add(torch.tensor(zero_point + 0.5), x.float(), alpha=1 / scale).to(torch.uint8)
        return torch.ops.onednn.qlinear_pointwise(  # type: ignore[no-any-return]
            steps,
            scale,
            zero_point,
            self.weight,
            self.scales,
            self.zero_points,
            self.bias,
            1.0,
            0,
            x.dtype,
            self.activation,
            [],
            "none",
        )


class CsrLinear(FixedLinear):
    """The product with the active weights alone, by MKL, in blocks of rows; differs by the order of its sums."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            rows = linear.weight.detach().to_sparse_csr()
            # MKL counts in 32 bits, and would be handed a copy at every call.
            self.weight = torch.sparse_csr_tensor(
                rows.crow_indices().int(), rows.col_indices().int(), rows.values(), rows.shape, check_invariants=False
            )
        self.nbytes = 8 * rows.values().numel() + 4 * (self.out_features + 1)
        bias = linear.weight.new_zeros(self.out_features) if self.bias is None else self.bias
        self.column = bias.detach().unsqueeze(1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.in_features).float()
        outputs = flat.new_empty(len(flat), self.out_features)
        for first in range(0, len(flat), _ROWS_AT_ONCE):
            block = slice(first, first + _ROWS_AT_ONCE)
            columns = flat[block].t().contiguous()
            found = torch.addmm(self.column.expand(-1, columns.shape[1]), self.weight, columns).t()
            outputs[block] = F.gelu(found) if self.activation == "gelu" else found
        return outputs.view(*x.shape[:-1], self.out_features).to(x.dtype)


MAKERS: Mapping[Kernel, Callable[[nn.Linear], FixedLinear]] = {
    Kernel.PACKED: PackedLinear,
    Kernel.CSR: CsrLinear,
    Kernel.BF16: BFloat16Linear,
    Kernel.INT8: Int8Linear,
}


def available(kernel: Kernel) -> bool:
    """Return whether this machine has the kernel, and instructions without which it cannot be the fastest."""
    if kernel is Kernel.PACKED:
        return has_onednn()
    if kernel is Kernel.CSR:
        return bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]
    if kernel is Kernel.BF16:
        return available(Kernel.PACKED) and multiplies_bf16()
    if kernel is Kernel.INT8:
        # Without these instructions oneDNN's sums of products overflow 16 bits.
        return has_onednn() and hasattr(torch.ops.onednn, "qlinear_pointwise") and torch.cpu._is_vnni_supported()
    return True
