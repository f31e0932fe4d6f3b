from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_core.sparsity.allocation import active_count, allocate, erdos_renyi_kernel, shrink_towards
from pals_core.spec import Allocation

SHAPES = {"wide": (64, 256), "narrow": (8, 8), "convolution": (32, 16, 3)}
TOTAL = sum(math.prod(shape) for shape in SHAPES.values())


@pytest.mark.parametrize("allocation", list(Allocation))
@pytest.mark.parametrize("density", [0.05, 0.3, 0.8, 1.0])
def test_the_asked_density_is_met_overall(allocation: Allocation, density: float) -> None:
    active = allocate(SHAPES, density, allocation)
    assert sum(active.values()) == math.floor(density * TOTAL + 1e-6)
    assert all(0 <= active[name] <= math.prod(shape) for name, shape in SHAPES.items())


def test_uniform_gives_every_tensor_the_same_density() -> None:
    assert allocate(SHAPES, 0.5, Allocation.UNIFORM) == {"wide": 8192, "narrow": 32, "convolution": 768}


@pytest.mark.parametrize("allocation", list(Allocation))
def test_a_tensor_of_one_weight_stays_open_at_the_expense_of_the_largest(allocation: Allocation) -> None:
    shapes = {"wide": (64, 256), "one": (1, 1), "few": (1, 3)}
    active = allocate(shapes, 0.1, allocation)
    assert active["one"] >= 1
    assert active["few"] >= 1
    assert sum(active.values()) == math.floor(0.1 * (64 * 256 + 4))


def test_fewer_weights_than_tensors_leave_one_each() -> None:
    assert allocate({"a": (2, 2), "b": (1, 1), "c": (3, 1)}, 0.2, Allocation.UNIFORM) == {"a": 1, "b": 1, "c": 1}


def test_erk_keeps_small_tensors_denser() -> None:
    densities = erdos_renyi_kernel(SHAPES, 0.3)
    assert densities["narrow"] == 1.0
    assert densities["narrow"] > densities["convolution"] > densities["wide"]


def test_erk_densities_are_proportional_to_axes_over_weights() -> None:
    densities = erdos_renyi_kernel({"a": (100, 200), "b": (50, 400)}, 0.1)
    assert densities["a"] / densities["b"] == pytest.approx((300 / 20_000) / (450 / 20_000))


@pytest.mark.parametrize(
    ("sparsity", "weights", "active"),
    [(0.9, 1000, 100), (0.8, 7, 1), (0.7, 10**9, 3 * 10**8), (1 / 3, 10, 6), (0.99, 50, 0)],
)
def test_a_target_is_reached_in_whole_weights(sparsity: float, weights: int, active: int) -> None:
    assert active_count(1 - sparsity, weights) == active


@given(
    st.dictionaries(st.integers(), st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=8),
    st.sampled_from(list(Allocation)),
    st.lists(st.floats(0.001, 1), min_size=2, max_size=4),
)
def test_tensors_only_ever_shrink_towards_a_falling_density(
    shapes: dict[int, tuple[int, int]], allocation: Allocation, densities: list[float]
) -> None:
    named = {str(key): shape for key, shape in shapes.items()}
    weights = sum(math.prod(shape) for shape in named.values())
    active = {name: math.prod(shape) for name, shape in named.items()}
    for density in sorted(densities, reverse=True):
        wanted = allocate(named, density, allocation)
        kept = shrink_towards(active, wanted)
        assert sum(wanted.values()) == sum(kept.values()) == max(active_count(density, weights), len(named))
        assert all(1 <= wanted[name] <= math.prod(named[name]) for name in named)
        assert all(1 <= kept[name] <= active[name] for name in named)
        active = kept


def test_what_one_tensor_cannot_keep_another_does() -> None:
    assert shrink_towards({"a": 2, "b": 5, "c": 4}, {"a": 3, "b": 4, "c": 4}) == {"a": 2, "b": 5, "c": 4}
