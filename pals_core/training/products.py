"""Matrix products of linear layers by oneDNN, on processors that PyTorch's own leave half idle.

PyTorch multiplies fp32 matrices with Intel's MKL, which uses no AVX-512 on processors of other makers; oneDNN does
(docs/decisions.md, "Products by oneDNN on AMD processors").

Shapes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pals_core.processor import has_avx512_of
from pals_core.training.arithmetic import Products


def has_onednn() -> bool:
    """Return whether this PyTorch has oneDNN's product of a linear layer."""
    known: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return known and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def choose_products(device: torch.device) -> Products:
    """Return whose fp32 products are faster on this device: a rule, so that a machine always takes the same."""
    pays = device.type == "cpu" and has_avx512_of("AMD") and has_onednn()
    return Products.ONEDNN if pays else Products.TORCH


def linear_by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """Return activation(x·weightᵀ + bias), [..., O], of [..., I], [O, I] and [O] on a CPU; it has no gradient.

    A weight may be transposed, or be one that `_reorder_linear_weight` has laid out, but not overlap itself.
    """
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")  # type: ignore[no-any-return]


class LinearLayersByOneDnn(TorchFunctionMode):
    """Within it, `F.linear` of fp32 tensors on a CPU is oneDNN's, backward pass included; all else is as ever."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.linear and not kwargs and _is_matrix_of_fp32(args[0]):
            x, weight, *bias = args
            # Rows that overlap in memory, as unfolded patches do, oneDNN cannot read.
            rows = x.reshape(-1, x.shape[-1]).contiguous()
            outputs = _Linear.apply(rows, weight, *(bias or [None]))  # type: ignore[no-untyped-call]
            return outputs.view(*x.shape[:-1], len(weight))
        return func(*args, **(kwargs or {}))


def _is_matrix_of_fp32(x: Tensor) -> bool:
    return x.dtype is torch.float32 and x.device.type == "cpu" and x.dim() > 1 and x.numel() > 0


class _Linear(torch.autograd.Function):
    """Of contiguous rows, [N, I]."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return linear_by_onednn(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        gradient = gradients[0]  # [N, O]
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        return (
            linear_by_onednn(gradient, weight.t(), None) if of_rows else None,
            linear_by_onednn(_transposed(gradient), rows.t(), None) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def _transposed(matrix: Tensor) -> Tensor:
    """Return the matrix, [N, O], as rows of its columns, [O, N]: the product wants rows, and to copy them PyTorch takes
    one thread, oneDNN all."""
    return torch.ops.aten._mkldnn_transpose(matrix.to_mkldnn(), 0, 1).to_dense()  # type: ignore[no-any-return]
