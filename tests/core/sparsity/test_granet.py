from __future__ import annotations

import math

import pytest
import torch

from tests.core.sparsity.small_network import Bench

UPDATES = 9


@pytest.mark.parametrize("growth", ["gradient", "random", "momentum"])
@pytest.mark.parametrize(("sparsity", "initial_density"), [(0.8, 1.0), (0.95, 0.5), (0.5, 0.5)])
def test_sparsity_follows_the_cubic_while_weights_return(growth: str, sparsity: float, initial_density: float) -> None:
    bench = Bench("granet", sparsity=sparsity, initial_density=initial_density, growth=growth)
    initial = 1 - initial_density
    assert bench.masks.sparsity == pytest.approx(initial, abs=1 / 2300)
    returned = 0
    for update in range(1, UPDATES + 1):
        before = bench.copies
        bench.steps(5 * update - 4, 5 * update)
        cubic = sparsity + (initial - sparsity) * (1 - update / UPDATES) ** 3
        assert sum(bench.masks.active.values()) == math.floor((1 - cubic) * 2300 + 1e-6)
        returned += sum(int((bench.masks[name] & ~before[name]).sum()) for name in before)
    assert returned > 0
    assert sparsity <= bench.masks.sparsity < sparsity + 1 / 2300
    assert not bench.steps(46, 60)


def test_an_update_prunes_all_layers_together_then_exchanges_within_each() -> None:
    bench = Bench("granet", sparsity=0.9, prune_rate=1e-9, prune_rate_min=1e-9)
    magnitudes = torch.cat([bench.masks.parameter(name).detach().abs().flatten() for name in bench.masks])
    bench.steps(1, 5)
    kept = torch.cat([bench.masks[name].flatten() for name in bench.masks])
    # Each layer exchanges ⌈ζ·n⌉ = 1 weight; but for these the smallest of the whole network are off.
    cut = 2300 - math.floor((1 - 0.9 * (1 - (8 / 9) ** 3)) * 2300)
    smallest = magnitudes.argsort()[:cut]
    assert int((~kept).sum()) == cut
    assert int(kept[smallest].sum()) <= 2


def test_change_counts_what_was_cut_twice_and_what_grew() -> None:
    bench = Bench("granet", sparsity=0.8, prune_rate=0.3, prune_rate_min=0.3)
    for parameter in bench.network.parameters():
        parameter.grad = parameter.detach().clone()
    decision = bench.method.decide(5, lambda: 0.0)
    assert decision is not None
    change = bench.method.update(decision)
    gone = 2300 - sum(bench.masks.active.values())
    assert change.pruned - change.grown == gone
    assert change.grown == sum(math.ceil(0.3 * active) for active in bench.masks.active.values())
    assert change.sparsity == bench.masks.sparsity
