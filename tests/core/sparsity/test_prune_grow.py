from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pals_core.sparsity.decision import Move
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.prune_grow import exchange_counts, grow_largest, prune_smallest, prune_smallest_of_all


@pytest.mark.parametrize(
    ("move", "active", "inactive", "rate", "factor", "counts"),
    [
        pytest.param(Move.SHRINK, 60, 0, 0.5, 1.1, (33, 30), id="shrink leaves 57 of 60"),
        pytest.param(Move.STABLE, 60, 0, 0.137, 1.1, (9, 9), id="stable exchanges"),
        pytest.param(Move.EXPAND, 60, 0, 0.5, 1.1, (30, 30), id="a dense tensor cannot expand"),
        pytest.param(Move.EXPAND, 52, 44, 0.5, 1.1, (26, 28), id="expand grows more than it prunes"),
        pytest.param(Move.SHRINK, 1, 9, 0.5, 1.1, (1, 1), id="the last weight is exchanged, not lost"),
        pytest.param(Move.SHRINK, 2, 9, 0.5, 1.1, (2, 1), id="two weights shrink to one"),
        pytest.param(Move.SHRINK, 0, 9, 0.5, 1.1, (0, 1), id="an empty tensor comes back"),
    ],
)
def test_counts(move: Move, active: int, inactive: int, rate: float, factor: float, counts: tuple[int, int]) -> None:
    assert exchange_counts(move, active, inactive, rate, factor) == counts


@given(
    st.sampled_from(list(Move)),
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.floats(0.001, 0.5),
    st.floats(1.001, 1.9),
)
def test_counts_never_ask_for_more_than_there_is(
    move: Move, active: int, inactive: int, rate: float, factor: float
) -> None:
    prune, grow = exchange_counts(move, active, inactive, rate, factor)
    assert 0 <= prune <= active
    assert 0 <= grow <= inactive + prune
    assert (move is Move.EXPAND) or grow <= max(prune, 1)
    assert active - prune + grow >= min(1, active + inactive)


@settings(max_examples=150)
@given(st.integers(0, 2**31), st.integers(1, 200), st.integers(1, 5), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_prune_and_grow_change_exactly_count_weights_at_the_ends_of_the_ranking(
    seed: int, size: int, distinct: int, density: float, pruned_share: float, grown_share: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-distinct, distinct + 1, (size,), generator=generator).float()
    score = torch.randint(-distinct, distinct + 1, (size,), generator=generator).float()
    mask = torch.rand(size, generator=generator) < density
    count = int(pruned_share * int(mask.sum()))

    pruned = prune_smallest(weight, mask, count)

    gone = mask & ~pruned
    assert not (pruned & ~mask).any()
    assert int(gone.sum()) == count
    if gone.any() and pruned.any():
        assert weight[gone].abs().max() <= weight[pruned].abs().min()

    count = int(grown_share * int((~pruned).sum()))
    grown = grow_largest(score, pruned, count)

    new = grown & ~pruned
    assert not (pruned & ~grown).any()
    assert int(new.sum()) == count
    if new.any() and (~grown).any():
        assert score[new].abs().min() >= score[~grown].abs().max()


def test_of_equal_weights_the_first_is_pruned_and_the_first_is_grown() -> None:
    mask = torch.tensor([True, True, False, True, False])
    equal = torch.ones(5)
    assert prune_smallest(equal, mask, 1).tolist() == [False, True, False, True, False]
    assert grow_largest(equal, mask, 1).tolist() == [True, True, True, True, False]


def test_an_active_weight_that_is_zero_is_pruned_before_others() -> None:
    weight = torch.tensor([0.5, 0.0, 0.0, -0.1])
    mask = torch.tensor([True, False, True, True])
    assert prune_smallest(weight, mask, 1).tolist() == [True, False, False, True]


def test_complex_weights_are_ranked_by_magnitude() -> None:
    weight = torch.tensor([3 + 4j, 1 + 1j, 0 - 2j])
    mask = torch.ones(3, dtype=torch.bool)
    assert prune_smallest(weight, mask, 1).tolist() == [True, False, True]
    assert grow_largest(weight, ~mask, 1).tolist() == [True, False, False]


def test_pruning_the_whole_network_leaves_every_tensor_its_largest_weight() -> None:
    large, small = torch.nn.Parameter(torch.arange(10.0, 19.0).view(3, 3)), torch.nn.Parameter(torch.tensor([[1.0, 2]]))
    masks = MaskSet([("large", large), ("small", small)])
    prune_smallest_of_all(masks, 4)
    assert masks["small"].tolist() == [[False, True]]
    assert masks["large"].flatten().tolist() == [False] * 3 + [True] * 6
    prune_smallest_of_all(masks, 99)
    assert masks.active == {"large": 1, "small": 1}
    prune_smallest_of_all(masks, 1)
    assert masks.active == {"large": 1, "small": 1}


def test_pruning_the_whole_network_leaves_one_of_weights_that_are_all_zero() -> None:
    large, zeros = torch.nn.Parameter(torch.ones(3, 3)), torch.nn.Parameter(torch.zeros(1, 4))
    masks = MaskSet([("large", large), ("zeros", zeros)])
    masks["zeros"] = torch.tensor([[False, True, True, True]])
    prune_smallest_of_all(masks, 2)
    assert masks["zeros"].tolist() == [[False, True, False, False]]
    assert masks.active["large"] == 9
