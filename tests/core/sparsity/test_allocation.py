from __future__ import annotations

import math

import pytest

from pals_core.sparsity.allocation import allocate, erdos_renyi_kernel
from pals_core.spec import Allocation

SHAPES = {"wide": (64, 256), "narrow": (8, 8), "convolution": (32, 16, 3)}
TOTAL = sum(math.prod(shape) for shape in SHAPES.values())


@pytest.mark.parametrize("allocation", list(Allocation))
@pytest.mark.parametrize("density", [0.05, 0.3, 0.8, 1.0])
def test_the_asked_density_is_met_overall(allocation: Allocation, density: float) -> None:
    active = allocate(SHAPES, density, allocation)
    assert sum(active.values()) == pytest.approx(density * TOTAL, abs=len(SHAPES))
    assert all(0 <= active[name] <= math.prod(shape) for name, shape in SHAPES.items())


def test_uniform_gives_every_tensor_the_same_density() -> None:
    assert allocate(SHAPES, 0.5, Allocation.UNIFORM) == {"wide": 8192, "narrow": 32, "convolution": 768}


def test_erk_keeps_small_tensors_denser() -> None:
    densities = erdos_renyi_kernel(SHAPES, 0.3)
    assert densities["narrow"] == 1.0
    assert densities["narrow"] > densities["convolution"] > densities["wide"]


def test_erk_densities_are_proportional_to_axes_over_weights() -> None:
    densities = erdos_renyi_kernel({"a": (100, 200), "b": (50, 400)}, 0.1)
    assert densities["a"] / densities["b"] == pytest.approx((300 / 20_000) / (450 / 20_000))
