from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pals_core.layers.dropout import Dropout
from pals_core.layers.feed_forward import FeedForward


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1,), (7, 3), (64, 33, 31)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_elements_are_zero_or_scaled_and_gradients_follow_them(
    p: float, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    x = torch.rand(shape, dtype=dtype) + 1
    x.requires_grad_()
    output = Dropout(p)(x)
    scale = 1 / (1 - p)
    kept = output != 0
    torch.testing.assert_close(output, torch.where(kept, x * scale, 0.0))
    assert output.dtype == dtype
    output.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.where(kept, scale, 0.0).to(dtype))


@pytest.mark.parametrize("p", [0.001, 0.05, 0.3, 0.999])
def test_the_share_asked_for_is_dropped_wherever_an_element_lies(p: float) -> None:
    torch.manual_seed(1)
    dropped = Dropout(p)(torch.ones(1_000_000)) == 0
    for quarter in dropped.view(4, -1):
        assert abs(quarter.double().mean() - p) < 6 * (p * (1 - p) / 250_000) ** 0.5
    both = (dropped[:-1] & dropped[1:]).double().mean()
    assert abs(both - p * p) < 6 * (p * p * (1 - p * p) / 1_000_000) ** 0.5


@pytest.mark.parametrize("p", [0.05, 0.4])
def test_the_number_of_dropped_elements_spreads_as_that_of_independent_ones(p: float) -> None:
    torch.manual_seed(2)
    dropout, ones, times = Dropout(p), torch.ones(100), 20_000
    counts = torch.stack([(dropout(ones) == 0).sum() for _ in range(times)]).double()
    variance = 100 * p * (1 - p)
    assert abs(counts.mean() - 100 * p) < 6 * (variance / times) ** 0.5
    assert abs(counts.var() / variance - 1) < 6 * (2.1 / times) ** 0.5


def test_an_input_in_any_memory_order_and_one_without_elements_are_taken() -> None:
    torch.manual_seed(3)
    x = (torch.rand(30, 40, 50) + 1).requires_grad_()
    output = Dropout(0.3)(x.transpose(0, 2))
    kept = (output != 0).transpose(0, 2)
    torch.testing.assert_close(output.transpose(0, 2), torch.where(kept, x / 0.7, 0.0))
    output.sum().backward()  # the gradient of a sum is one number in every place
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.where(kept, 1 / 0.7, 0.0))
    assert Dropout(0.3)(torch.ones(0, 4)).shape == (0, 4)


def test_evaluation_and_no_dropout_draw_nothing_and_return_the_input() -> None:
    x = torch.randn(5)
    before = torch.get_rng_state()
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert torch.equal(Dropout(0.5).eval().added(x, x), x + x)
    assert torch.equal(Dropout(0.5).eval().of_gelu(x)[0], F.gelu(x))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_seed_drops_the_same_on_any_number_of_threads() -> None:
    threads = torch.get_num_threads()
    x = torch.ones(50, 60, 70)
    outputs = []
    try:
        for count in (1, threads + 1):
            torch.set_num_threads(count)
            torch.manual_seed(3)
            outputs.append(Dropout(0.1)(x))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*outputs)
    assert not torch.equal(Dropout(0.1)(x), outputs[0])


@pytest.mark.parametrize("p", [0.05, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_added_is_dropped_or_scaled_and_gradients_follow_it(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    whole = torch.rand(7, 50, 31, dtype=dtype).requires_grad_()
    addend = (torch.rand(7, 40, 31, dtype=dtype) + 1).requires_grad_()
    x = whole[:, -40:]  # its rows do not follow one another in memory
    output = Dropout(p).added(x, addend, 3.0)
    scale = 3.0 / (1 - p)
    kept = output != x
    assert abs(kept.double().mean() - (1 - p)) < 6 * (p * (1 - p) / kept.numel()) ** 0.5
    torch.testing.assert_close(output, torch.where(kept, x + addend * scale, x))
    output.sum().backward()
    assert whole.grad is not None
    assert addend.grad is not None
    assert torch.equal(whole.grad, torch.cat((torch.zeros(7, 10, 31), torch.ones(7, 40, 31)), dim=1).to(dtype))
    torch.testing.assert_close(addend.grad, torch.where(kept, scale, 0.0).to(dtype))


@pytest.mark.parametrize("p", [0.05, 0.9])
def test_a_dropped_gelu_is_gelu_and_dropout(p: float) -> None:
    x = torch.linspace(-4, 4, 999).requires_grad_()
    torch.manual_seed(5)
    activated, factor = Dropout(p).of_gelu(x)
    torch.manual_seed(5)
    expected = Dropout(p)(F.gelu(x))
    torch.testing.assert_close(activated * factor, expected)
    gradients = [torch.autograd.grad(output.sum(), x)[0] for output in (activated * factor, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("p", [0.0, 0.05, 0.9])
@pytest.mark.parametrize("bias", [True, False])
def test_a_feed_forward_pair_is_the_sum_that_it_stands_for(p: float, bias: bool) -> None:
    torch.manual_seed(6)
    pair, x = FeedForward(12, 48, p, bias=bias), torch.randn(5, 9, 12, requires_grad=True)
    tensors = (x, *pair.parameters())

    def by_hand() -> torch.Tensor:
        return x + pair.dropout(pair.contract(pair.dropout(F.gelu(pair.expand(x)))))

    for mode in (True, False):
        pair.train(mode)
        outputs, gradients = [], []
        for run in (lambda: pair(x), by_hand):
            torch.manual_seed(7)
            outputs.append(run())
            gradients.append(torch.autograd.grad(outputs[-1].square().sum(), tensors))
        torch.testing.assert_close(*outputs)
        torch.testing.assert_close(*gradients)
