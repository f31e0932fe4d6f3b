"""Every kernel computes what the linear layer does, as exactly as it says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pals_core.kernels.linear import MAKERS, CsrLinear, Int8Linear, Kernel, available
from tests.core.kernels.machine_kernels import KERNELS, needs

IN_FP32 = (Kernel.PACKED, Kernel.CSR)
# Of the largest output; 8 bits of a mantissa, 8 bits of a number.
TOLERANCE = {Kernel.PACKED: 1e-6, Kernel.CSR: 1e-6, Kernel.BF16: 0.01, Kernel.INT8: 0.02}


def sparse_linear(inputs: int = 96, outputs: int = 40, density: float = 0.3, *, bias: bool = True) -> nn.Linear:
    generator = torch.Generator().manual_seed(3)
    linear = nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
    for parameter in linear.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    linear.weight *= torch.rand(linear.weight.shape, generator=generator) < density
    return linear


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1,), (64,), (65,), (3, 50), (2, 1, 7)])
def test_it_says_what_the_layer_says(kernel: Kernel, bias: bool, shape: tuple[int, ...]) -> None:
    needs(kernel)
    linear = sparse_linear(bias=bias)
    x = torch.randn(*shape, 96, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        expected, found = linear(x), MAKERS[kernel](linear)(x)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= TOLERANCE[kernel] * float(expected.abs().max())


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_takes_bfloat16_returns_it(kernel: Kernel) -> None:
    needs(kernel)
    linear = sparse_linear()
    x = torch.randn(3, 50, 96, generator=torch.Generator().manual_seed(4)).bfloat16()
    with torch.inference_mode():
        expected, found = linear(x.float()), MAKERS[kernel](linear)(x)
    assert found.dtype == torch.bfloat16
    assert float((found - expected).abs().max()) <= (TOLERANCE[kernel] + 2**-8) * float(expected.abs().max())


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_activation_that_follows_is_the_exact_gelu(kernel: Kernel) -> None:
    needs(kernel)
    linear = sparse_linear()
    x = torch.randn(70, 96, generator=torch.Generator().manual_seed(4)) / 10
    layer = MAKERS[kernel](linear)
    without = layer(x)
    layer.activation = "gelu"
    found, exact = layer(x), nn.functional.gelu(without)
    largest = float(exact.abs().max())
    assert float((found - exact).abs().max()) <= largest * (2**-7 if kernel is Kernel.BF16 else 2e-6)
    approximate = nn.functional.gelu(without, approximate="tanh")
    assert kernel is Kernel.BF16 or float((found - approximate).abs().max()) > 1e-5 * largest


@pytest.mark.parametrize("kernel", KERNELS)
def test_inputs_that_are_a_view_are_read_in_their_order(kernel: Kernel) -> None:
    needs(kernel)
    linear = sparse_linear()
    x = torch.randn(5, 96, 7, generator=torch.Generator().manual_seed(4)).transpose(1, 2)
    found, expected = MAKERS[kernel](linear)(x), linear(x)
    assert float((found - expected).abs().max()) <= TOLERANCE[kernel] * float(expected.abs().max())


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_an_active_weight_the_bias_is_left(kernel: Kernel) -> None:
    needs(kernel)
    linear = sparse_linear(density=0.0)
    found = MAKERS[kernel](linear)(torch.ones(3, 96))
    torch.testing.assert_close(found, linear.bias.expand(3, -1), rtol=2**-8 if kernel is Kernel.BF16 else 1e-6, atol=0)


@pytest.mark.instructions
@pytest.mark.parametrize("constant", [0.0, 5.0, -5.0, 1e-20, 1e20])
def test_bytes_reach_from_the_smallest_to_the_largest_input(constant: float) -> None:
    needs(Kernel.INT8)
    linear = sparse_linear(bias=False)
    x = torch.full((2, 96), constant)
    expected = linear(x)
    assert float((Int8Linear(linear)(x) - expected).abs().max()) <= 0.02 * float(expected.abs().max())


@pytest.mark.instructions
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_bytes_cannot_hide_that_an_input_is_not_finite(number: float) -> None:
    needs(Kernel.INT8)
    x = torch.zeros(2, 96)
    x[0, 0] = number
    assert Int8Linear(sparse_linear())(x).isnan().all()


def test_the_bytes_of_weights_are_counted() -> None:
    linear = sparse_linear()
    active = int(linear.weight.count_nonzero())
    found = {kernel: maker(linear).nbytes for kernel, maker in MAKERS.items() if available(kernel)}
    expected = {
        Kernel.PACKED: 4 * 96 * 40,
        Kernel.CSR: (4 + 4) * active + 4 * 41,
        Kernel.BF16: 2 * 96 * 40,
        Kernel.INT8: 96 * 40 + 4 * 40,
    }
    assert found == {kernel: expected[kernel] for kernel in found}


def test_a_sparse_layer_computes_with_its_active_weights_alone() -> None:
    needs(Kernel.CSR)
    linear = sparse_linear()
    assert CsrLinear(linear).weight.values().numel() == int(linear.weight.count_nonzero())
