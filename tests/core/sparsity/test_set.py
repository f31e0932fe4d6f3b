from __future__ import annotations

import torch

from tests.core.sparsity.small_network import Bench


def test_a_constant_share_is_exchanged_for_any_weights() -> None:
    bench = Bench("set", sparsity=0.9, prune_rate=0.4)
    start = bench.masks.active
    decisions = bench.steps()
    assert {decision.prune_rate for decision in decisions} == {0.4}
    assert bench.masks.active == start


def test_gradients_do_not_matter() -> None:
    one, other = Bench("set"), Bench("set")
    other.gradients.manual_seed(99)
    for bench in (one, other):
        bench.steps()
    assert all(torch.equal(one.masks[name], other.masks[name]) for name in one.masks)


def test_every_inactive_weight_may_grow() -> None:
    bench = Bench("set", sparsity=0.9, prune_rate=0.5)
    seen = bench.copies
    for step in range(1, 61):
        bench.step(step)
        seen = {name: seen[name] | bench.masks[name] for name in seen}
    # Nine exchanges of half of a tenth: by chance alone 1 − 0.9·(1 − 0.05)⁹ of all weights have been active.
    assert 0.3 < float(seen["0.weight"].float().mean()) < 0.55


def test_draws_come_from_the_methods_own_generator() -> None:
    one, other = Bench("set"), Bench("set")
    state = torch.get_rng_state()
    one.steps()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(10)
    other.steps()
    assert all(torch.equal(one.masks[name], other.masks[name]) for name in one.masks)
