from __future__ import annotations

import pytest
import torch
from torch import nn

from pals_core.sparsity.decision import Best, Move
from pals_core.sparsity.fixed import FixedMasks
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.method import Decision
from pals_core.sparsity.pals import PalsController
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.spec import Allocation, PalsMethodSpec


def never_measured() -> float:
    raise AssertionError("the loss was measured without need")


class Bench:
    """A linear layer under PALS, with gradients drawn anew for every update."""

    def __init__(self, **fields: object) -> None:
        torch.manual_seed(0)
        self.spec = PalsMethodSpec.model_validate({"update_interval": 5} | fields)
        self.layer = nn.Linear(40, 50)
        self.masks = MaskSet(self.layer.named_parameters())
        schedule = UpdateSchedule.of(self.spec, epochs=10, steps_per_epoch=19)
        self.pals = PalsController(self.spec, self.masks, schedule, seed=7)
        self.masks.apply()

    def update(self, step: int, loss: float) -> Decision:
        decision = self.pals.decide(step, lambda: loss)
        assert decision is not None
        self.layer.weight.grad = torch.randn_like(self.layer.weight)
        self.pals.update(decision)
        self.masks.apply()
        return decision


def test_always_shrinking_reaches_the_published_sparsities_of_illness() -> None:
    bench = Bench(max_sparsity=0.99)
    reached = []
    for step in range(5, 126, 5):
        assert bench.update(step, loss=1.0).move is Move.SHRINK
        reached.append(bench.masks.sparsity)
    after = {updates: reached[updates - 1] for updates in (4, 8, 12, 16, 19, 23, 25)}
    published = {4: 0.18, 8: 0.33, 12: 0.43, 16: 0.50, 19: 0.54, 23: 0.58, 25: 0.60}
    assert after == pytest.approx(published, abs=0.011)


def test_between_updates_and_after_the_freeze_nothing_is_measured() -> None:
    pals = Bench().pals
    for step in (1, 4, 6, 126, 130, 190):
        assert pals.decide(step, never_measured) is None
    assert not pals.is_frozen(124)
    assert pals.is_frozen(125)


def test_sparsity_stays_within_its_limits() -> None:
    bench = Bench(prune_rate_factor=1.9, min_sparsity=0.3, max_sparsity=0.6)
    moves = [bench.update(step, loss=1.0 if step < 60 else 9.0) for step in range(5, 126, 5)]
    assert all(move.move is Move.SHRINK for move in moves if move.sparsity < 0.3)
    assert all(move.move is not Move.SHRINK for move in moves if move.sparsity >= 0.6)
    assert {move.move for move in moves} == set(Move)


def test_the_best_loss_remembers_its_sparsity() -> None:
    bench = Bench()
    first = bench.update(5, loss=2.0)
    second = bench.update(10, loss=1.0)
    third = bench.update(15, loss=1.05)
    assert first.best is None
    assert second.best == Best(2.0, 0.0)
    assert third.best == Best(1.0, second.sparsity)
    assert second.sparsity > 0


def test_a_regrown_weight_keeps_its_value_and_a_new_one_starts_at_zero() -> None:
    bench = Bench()
    bench.update(5, loss=1.0)
    before, weight = bench.masks["weight"].clone(), bench.layer.weight.detach().clone()
    bench.update(10, loss=1.0)
    kept, new = bench.masks["weight"] & before, bench.masks["weight"] & ~before
    assert new.any()
    assert torch.equal(bench.layer.weight[kept], weight[kept])
    assert not bench.layer.weight[new].any()


@pytest.mark.parametrize("allocation", list(Allocation))
def test_a_sparse_start_has_the_asked_density(allocation: Allocation) -> None:
    bench = Bench(initial_density=0.25, initial_allocation=allocation)
    assert bench.masks.sparsity == pytest.approx(0.75, abs=1e-3)
    assert int(bench.layer.weight.count_nonzero()) == bench.masks.active["weight"]


def test_a_restored_controller_decides_alike() -> None:
    bench, restored = Bench(), Bench()
    bench.update(5, loss=1.0)
    restored.pals.load_state(bench.pals.state_dict(), bench.pals.state_tensors())
    restored.masks.load_state_dict(bench.masks.now())
    assert restored.pals.decide(10, lambda: 5.0) == bench.pals.decide(10, lambda: 5.0)


def test_a_weight_without_gradient_is_an_error() -> None:
    bench = Bench()
    decision = bench.pals.decide(5, lambda: 1.0)
    assert decision is not None
    with pytest.raises(ValueError, match="weight has no gradient"):
        bench.pals.update(decision)


def test_without_expand_it_stays_where_it_would_expand() -> None:
    growing, staying = Bench(min_sparsity=0.05), Bench(min_sparsity=0.05, expand=False)
    for bench in (growing, staying):
        for step in (5, 10, 15):
            bench.update(step, loss=1.0)
    before = staying.masks.active["weight"]
    assert growing.update(20, loss=5.0).move is Move.EXPAND
    assert staying.update(20, loss=5.0).move is Move.STABLE
    assert growing.masks.active["weight"] > staying.masks.active["weight"] == before


def test_fixed_masks_never_update() -> None:
    fixed = FixedMasks()
    assert fixed.decide(5, never_measured) is None
    assert fixed.is_frozen(0)
    fixed.load_state(fixed.state_dict(), fixed.state_tensors())
    with pytest.raises(ValueError, match="no update"):
        fixed.update(Decision(5, Move.SHRINK, 1.0, None, 0.0, 0.5))
    with pytest.raises(ValueError, match="no state"):
        fixed.load_state({"best": 1}, {})
