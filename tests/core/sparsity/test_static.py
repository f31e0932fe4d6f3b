from __future__ import annotations

import pytest
import torch

from tests.core.sparsity.small_network import Bench


@pytest.mark.parametrize("allocation", ["erk", "uniform"])
@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.98])
def test_the_mask_is_drawn_once_at_its_target(allocation: str, sparsity: float) -> None:
    bench = Bench("static", sparsity=sparsity, allocation=allocation)
    first = bench.copies
    assert sparsity <= bench.masks.sparsity < sparsity + 1 / 2300
    assert bench.steps() == []
    assert bench.method.is_frozen(0)
    assert all(torch.equal(bench.masks[name], first[name]) for name in first)
