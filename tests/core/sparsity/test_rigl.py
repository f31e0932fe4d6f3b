from __future__ import annotations

import math

import pytest
import torch

from pals_core.sparsity.decision import Move
from tests.core.sparsity.small_network import Bench


@pytest.mark.parametrize("allocation", ["erk", "uniform"])
@pytest.mark.parametrize("growth", ["gradient", "random", "momentum"])
def test_every_layer_keeps_its_number_of_weights_at_the_target(allocation: str, growth: str) -> None:
    bench = Bench("rigl", sparsity=0.83, allocation=allocation, growth=growth)
    start, first = bench.masks.active, bench.copies
    assert sum(start.values()) == math.floor(0.17 * 2300)
    assert (start["1.weight"] > 2 * 0.17 * 300) == (allocation == "erk")
    decisions = bench.steps()
    assert [decision.step for decision in decisions] == list(range(5, 50, 5))
    assert all(decision.move is Move.STABLE and decision.loss is None for decision in decisions)
    assert bench.masks.active == start
    assert not all(torch.equal(bench.masks[name], first[name]) for name in first)


def test_the_share_exchanged_falls_to_zero_where_masks_freeze() -> None:
    rates = {decision.step: decision.prune_rate for decision in Bench("rigl", prune_rate=0.3).steps()}
    assert rates == pytest.approx({step: 0.15 * (1 + math.cos(math.pi * step / 50)) for step in range(5, 50, 5)})


def test_the_smallest_weights_give_way_to_the_largest_gradients() -> None:
    bench = Bench("rigl", sparsity=0.8, allocation="uniform")
    before, weights = bench.copies, {name: bench.masks.parameter(name).detach().clone() for name in bench.masks}
    decision = [bench.step(step) for step in range(1, 6)][-1]
    assert decision is not None
    for name in bench.masks:
        gradient = bench.masks.parameter(name).grad
        assert gradient is not None
        off, new = before[name] & ~bench.masks[name], bench.masks[name] & ~before[name]
        assert int(off.sum()) == int(new.sum()) > 0
        cut = math.ceil(decision.prune_rate * int(before[name].sum()))
        smallest = weights[name].abs()[before[name]].sort().values[cut - 1]
        assert weights[name].abs()[off].max() <= smallest
        still_off = ~bench.masks[name]
        assert gradient.abs()[new].min() >= gradient.abs()[still_off].max()


def test_momentum_remembers_earlier_gradients() -> None:
    bench = Bench("rigl", sparsity=0.9, growth="momentum", prune_rate=0.1)
    inactive = (~bench.masks["0.weight"]).nonzero()[0].tolist()
    for step in range(1, 6):
        for parameter in bench.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        gradient = bench.network[0].weight.grad
        assert isinstance(gradient, torch.Tensor)
        if step < 5:
            gradient[tuple(inactive)] = 1.0
        decision = bench.method.decide(step, lambda: 0.0)
    assert decision is not None
    bench.method.update(decision)
    assert bench.masks["0.weight"][tuple(inactive)]
