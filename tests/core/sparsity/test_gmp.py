from __future__ import annotations

import math

import pytest
import torch

from pals_core.sparsity.decision import Move
from tests.core.sparsity.small_network import Bench

UPDATES = 9  # every 5 steps before step (4 + 1)·10
ALLOCATIONS = ["uniform", "erk", "global"]


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("sparsity", [0.3, 0.77, 0.95])
def test_sparsity_follows_the_cubic_and_ends_at_the_target(allocation: str, sparsity: float) -> None:
    bench = Bench("gmp", sparsity=sparsity, allocation=allocation)
    for update in range(1, UPDATES + 1):
        (decision,) = bench.steps(5 * update - 4, 5 * update)
        cubic = sparsity * (1 - (1 - update / UPDATES) ** 3)
        assert decision.move is Move.SHRINK
        assert sum(bench.masks.active.values()) == math.floor((1 - cubic) * 2300 + 1e-6)
    assert sparsity <= bench.masks.sparsity < sparsity + 1 / 2300
    assert not bench.steps(46, 60)
    assert bench.method.is_frozen(45)
    assert not bench.method.is_frozen(44)


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_a_pruned_weight_never_returns(allocation: str) -> None:
    bench = Bench("gmp", allocation=allocation)
    before = bench.copies
    for step in range(1, 61):
        bench.step(step)
        assert not any((bench.masks[name] & ~before[name]).any() for name in before)
        before = bench.copies


def test_uniform_prunes_the_smallest_of_each_layer() -> None:
    bench = Bench("gmp", sparsity=0.6, allocation="uniform")
    magnitudes = {name: bench.masks.parameter(name).detach().abs() for name in bench.masks}
    bench.steps()
    for name, mask in bench.masks.now().items():
        assert int(mask.sum()) == pytest.approx(0.4 * mask.numel(), abs=1)
        assert magnitudes[name][~mask].max() <= magnitudes[name][mask].min()


def test_global_prunes_the_smallest_of_all() -> None:
    bench = Bench("gmp", sparsity=0.6, allocation="global")
    magnitudes = {name: bench.masks.parameter(name).detach().abs() for name in bench.masks}
    bench.steps()
    off = torch.cat([magnitudes[name][~bench.masks[name]] for name in bench.masks])
    on = torch.cat([magnitudes[name][bench.masks[name]] for name in bench.masks])
    assert off.max() <= on.min()


def test_erk_leaves_the_small_layer_denser() -> None:
    bench = Bench("gmp", allocation="erk")
    bench.steps()
    active = bench.masks.active
    assert active["1.weight"] / 300 > 2 * active["0.weight"] / 2000
