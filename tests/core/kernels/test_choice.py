"""What is measured to be faster is chosen, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from pals_core.kernels import choice
from pals_core.kernels.choice import Kernels, choose_kernels
from pals_core.kernels.linear import FixedLinear, Kernel
from pals_core.kernels.report import KernelReport
from pals_core.layers.stacks import EncoderLayer, LayerSizes

WIDTH = 64
PLAIN = nn.functional.linear
Costs = dict[Kernel, Callable[[int], float]]


class Network(nn.Module):
    """Two layers for every step of a window, one for the window, and one too small to be measured."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList([nn.Linear(WIDTH, WIDTH, bias=False)])
        self.last = nn.Linear(WIDTH, WIDTH)
        self.small = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.small(self.last(self.blocks[0](x).mean(dim=1)))  # type: ignore[no-any-return]


class Transforming(nn.Module):
    """A layer of attention and feed-forward between two others."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.block = EncoderLayer(LayerSizes(d_model=WIDTH, d_ff=8, heads=2, dropout=0.0))  # d_ff too small to measure
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(self.first(x)))  # type: ignore[no-any-return]


class Timed(FixedLinear):
    """The dense product at the price, and with the error, that a machine gives to a kernel."""

    def __init__(self, machine: Machine, kernel: Kernel, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.machine, self.kernel, self.weight, self.nbytes = machine, kernel, linear.weight, 7

    def forward(self, x: Tensor) -> Tensor:
        cost = self.machine.costs[self.kernel](x.numel() // x.shape[-1])
        self.machine.now += cost * (self.machine.of_bfloat16 if x.dtype == torch.bfloat16 else 1)
        found = PLAIN(x.float(), self.weight, self.bias) * (1 + self.machine.error.get(self.kernel, 0.0))
        return (nn.functional.gelu(found) if self.activation == "gelu" else found).to(x.dtype)


class Machine:
    """A clock that products advance, instead of one that time does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.costs: Costs = {Kernel.DENSE: lambda rows: 10.0 * rows}
        self.error: dict[Kernel, float] = {}
        self.of_bfloat16 = 1.0  # share of its cost that a product of bfloat16 inputs has

        def dense(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            self.now += self.costs[Kernel.DENSE](x.numel() // x.shape[-1])
            return PLAIN(x, weight, bias)

        monkeypatch.setattr(nn.functional, "linear", dense)
        monkeypatch.setattr(choice.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(choice, "MAKERS", {kernel: partial(Timed, self, kernel) for kernel in Kernel})
        monkeypatch.setattr(choice, "available", lambda kernel: kernel in self.costs)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def network() -> tuple[Network, Network, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dense, model = Network().eval(), Network().eval()
        model.load_state_dict(dense.state_dict())
        return model, dense, torch.randn(2, 8, WIDTH)


def kernels_of(report: KernelReport) -> dict[str, Kernel]:
    return {layer.layer: layer.kernel for layer in report.layers}


def test_each_layer_gets_what_is_fastest_for_its_rows(machine: Machine) -> None:
    machine.costs[Kernel.PACKED] = lambda rows: 20.0 + 5.0 * rows  # slower than dense for 2 rows, faster for 16
    machine.costs[Kernel.BF16] = lambda rows: 8.0 * rows
    model, dense, x = network()
    report = choose_kernels(model, dense, [x], Kernels.AUTO, 1e-9)
    assert kernels_of(report) == {"first": Kernel.PACKED, "blocks.0": Kernel.PACKED, "last": Kernel.BF16}
    assert [layer.rows for layer in report.layers] == [16, 16, 2]
    assert report.layers[0].dense_microseconds == pytest.approx(160e6)
    assert report.layers[0].microseconds == pytest.approx(100e6)
    assert report.dense_microseconds == pytest.approx((160 + 160 + 20 + 20) * 1e6)
    assert report.microseconds == pytest.approx((100 + 100 + 16 + 20) * 1e6)
    assert isinstance(model.blocks[0], FixedLinear)
    assert isinstance(model.small, nn.Linear)
    assert torch.equal(model(x), dense(x))


def test_what_disturbs_the_machine_for_a_while_disturbs_every_kernel(machine: Machine) -> None:
    busy_until = 27_000.0  # all runs of two kernels, or two of three turns

    def priced(cost: float) -> Callable[[int], float]:
        return lambda rows: cost * rows * (20 if machine.now < busy_until else 1)

    # Measured one after the other, only CSR would have been fast.
    machine.costs = {Kernel.DENSE: priced(10.0), Kernel.PACKED: priced(5.0), Kernel.CSR: priced(8.0)}
    model, dense, x = network()
    for each in (model, dense):
        each.first.weight.data[:, WIDTH // 4 :] = 0
    report = choose_kernels(model, dense, [x], Kernels.FP32, 0)
    assert kernels_of(report)["first"] is Kernel.PACKED


def test_less_than_a_tenth_is_no_gain(machine: Machine) -> None:
    machine.costs[Kernel.PACKED] = lambda rows: 9.5 * rows
    model, dense, x = network()
    assert set(kernels_of(choose_kernels(model, dense, [x], Kernels.FP32, 0)).values()) == {Kernel.DENSE}
    assert all(isinstance(module, nn.Linear) for module in (model.first, model.blocks[0], model.last))


def test_where_nothing_is_there_the_network_stays(machine: Machine) -> None:
    model, dense, x = network()
    report = choose_kernels(model, dense, [x], Kernels.AUTO, 0)
    assert set(kernels_of(report).values()) == {Kernel.DENSE}
    assert report.microseconds == report.dense_microseconds
    assert [layer.bytes for layer in report.layers] == [4 * WIDTH * WIDTH] * 3


def test_a_network_that_is_slower_as_a_whole_stays(machine: Machine) -> None:
    calls = 0

    def at_first_fast(rows: int) -> float:
        nonlocal calls
        calls += 1
        return rows if calls < 100 else 50.0 * rows

    machine.costs[Kernel.PACKED] = at_first_fast
    model, dense, x = network()
    calls = 100 - 2 * (1 + choice._FEWEST_RUNS) - 3
    report = choose_kernels(model, dense, [x], Kernels.FP32, 0)
    assert calls > 100
    assert set(kernels_of(report).values()) == {Kernel.DENSE}
    assert report.microseconds == report.dense_microseconds
    assert {(layer.microseconds == layer.dense_microseconds, layer.max_error) for layer in report.layers} == {(True, 0)}
    assert isinstance(model.first, nn.Linear)


def test_less_precision_is_given_up_where_forecasts_change_too_much(machine: Machine) -> None:
    machine.costs |= {Kernel.INT8: lambda rows: rows, Kernel.BF16: lambda rows: 2.0 * rows}
    machine.costs[Kernel.PACKED] = lambda rows: 3.0 * rows
    machine.error = {Kernel.INT8: 0.1, Kernel.BF16: 0.01}
    found = {}
    for largest in (1.0, 1e-4, 1e-9):
        model, dense, x = network()
        report = choose_kernels(model, dense, [x], Kernels.AUTO, largest)
        assert report.squared_change <= largest
        found[largest] = set(kernels_of(report).values())
    assert found == {1.0: {Kernel.INT8}, 1e-4: {Kernel.BF16}, 1e-9: {Kernel.PACKED}}
    model, dense, x = network()
    only_fp32 = choose_kernels(model, dense, [x], Kernels.FP32, 1.0)
    assert set(kernels_of(only_fp32).values()) == {Kernel.PACKED}


@pytest.mark.parametrize(
    ("of_bfloat16", "largest_change", "kernels", "wholly"),
    [
        (0.5, 1e-2, Kernels.AUTO, True),
        (1.5, 1e-2, Kernels.AUTO, False),  # slower
        (0.5, 1e-12, Kernels.AUTO, False),  # too different
        (0.5, 1e-2, Kernels.FP32, False),
    ],
)
def test_blocks_compute_wholly_in_bfloat16_where_that_is_faster_and_hardly_changes_forecasts(
    machine: Machine, of_bfloat16: float, largest_change: float, kernels: Kernels, wholly: bool
) -> None:
    machine.costs |= {Kernel.BF16: lambda rows: 5.0 * rows, Kernel.PACKED: lambda rows: 6.0 * rows}
    machine.of_bfloat16 = of_bfloat16
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dense, model = Transforming().eval(), Transforming().eval()
        model.load_state_dict(dense.state_dict())
        x = torch.randn(2, 8, WIDTH)
    report = choose_kernels(model, dense, [x], kernels, largest_change)
    assert report.bfloat16_blocks == (("block",) if wholly else ())
    assert report.squared_change <= largest_change
    # What stands between products in bfloat16 has to take and return it, however small.
    assert isinstance(model.block.feed_forward.expand, FixedLinear) == wholly
    types: list[torch.dtype] = []
    hook = model.block.attention.output.register_forward_pre_hook(lambda _, inputs: types.append(inputs[0].dtype))
    with torch.inference_mode():
        torch.testing.assert_close(model(x), dense(x), rtol=0, atol=0.1 if wholly else 1e-6)
    hook.remove()
    assert types == [torch.bfloat16 if wholly else torch.float32]


def test_errors_of_a_layer_are_shares_of_its_largest_output(machine: Machine) -> None:
    machine.costs[Kernel.INT8] = lambda rows: rows
    machine.error[Kernel.INT8] = 0.01
    model, dense, x = network()
    report = choose_kernels(model, dense, [x], Kernels.AUTO, 1.0)
    assert [layer.max_error for layer in report.layers] == pytest.approx([0.01] * 3, rel=1e-3)
    assert [layer.bytes for layer in report.layers] == [7] * 3


def test_the_sparse_product_is_for_sparse_layers(machine: Machine) -> None:
    machine.costs[Kernel.CSR] = lambda rows: rows
    model, dense, x = network()
    for each in (model, dense):
        each.first.weight.data[:, WIDTH // 4 :] = 0
    report = choose_kernels(model, dense, [x], Kernels.FP32, 0)
    assert kernels_of(report) == {"first": Kernel.CSR, "blocks.0": Kernel.DENSE, "last": Kernel.DENSE}
    assert [layer.density for layer in report.layers] == [0.25, 1.0, 1.0]


def test_the_report_is_a_table(machine: Machine) -> None:
    model, dense, x = network()
    frame = choose_kernels(model, dense, [x], Kernels.FP32, 0).to_frame()
    assert list(frame.index) == ["first", "blocks.0", "last"]
    assert list(frame.kernel) == ["dense"] * 3
    assert (frame.inputs * frame.outputs == WIDTH * WIDTH).all()
