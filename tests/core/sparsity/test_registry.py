from __future__ import annotations

from typing import get_args

import pytest
import torch

from pals_core.errors import InvalidSpec
from pals_core.sparsity.allocation import active_count
from pals_core.sparsity.registry import UPDATING
from pals_core.spec import METHOD_SPECS, DenseMethodSpec, StaticMethodSpec, UpdatingMethodSpec
from tests.core.sparsity.small_network import Bench


def test_every_method_of_the_spec_has_a_class() -> None:
    assert {spec.model_fields["name"].default for spec in get_args(UpdatingMethodSpec)} == set(UPDATING)
    assert set(METHOD_SPECS) == {*get_args(UpdatingMethodSpec), DenseMethodSpec, StaticMethodSpec}


@pytest.mark.parametrize(
    ("method", "growth"),
    [
        *[("granet", growth) for growth in ("gradient", "random", "momentum")],
        *[("rigl", growth) for growth in ("gradient", "random", "momentum")],
        *[(name, None) for name in ("gmp", "set", "static")],
    ],
)
def test_a_restored_method_goes_on_alike(method: str, growth: str | None) -> None:
    fields = {"growth": growth} if growth else {}
    bench, restored = Bench(method, **fields), Bench(method, **fields)
    bench.steps(1, 22)
    restored.masks.load_state_dict(bench.masks.now())
    restored.network.load_state_dict(bench.network.state_dict())
    tensors = {name: tensor.clone() for name, tensor in bench.method.state_tensors().items()}
    restored.method.load_state(bench.method.state_dict(), tensors)
    restored.gradients.set_state(bench.gradients.get_state())
    for one in (bench, restored):
        one.steps(23)
    assert all(torch.equal(bench.masks[name], restored.masks[name]) for name in bench.masks)


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("granet", {}),
        *[("gmp", {"allocation": allocation}) for allocation in ("global", "uniform", "erk")],
        *[
            (name, {"allocation": allocation})
            for name in ("rigl", "set", "static")
            for allocation in ("uniform", "erk")
        ],
    ],
)
@pytest.mark.parametrize("sparsity", [0.5, 0.99])
def test_a_target_is_met_to_the_weight_beside_a_tiny_tensor(
    method: str, fields: dict[str, str], sparsity: float
) -> None:
    bench = Bench(method, outputs=1, sparsity=sparsity, **fields)
    bench.steps()
    assert bench.masks.maskable_parameters - bench.masks.inactive_parameters == active_count(1 - sparsity, 2050)
    assert all(active >= 1 for active in bench.masks.active.values())


@pytest.mark.parametrize("method", ["granet", "gmp", "rigl", "set", "static"])
def test_a_target_that_leaves_less_than_a_weight_to_each_tensor_is_refused(method: str) -> None:
    # Two tensors, 2050 weights: 2 weights may be the last ones.
    Bench(method, outputs=1, sparsity=0.999)
    with pytest.raises(InvalidSpec, match=r"2 tensors, which have 2050 weights: at most 0\.999 can") as refused:
        Bench(method, outputs=1, sparsity=0.9995)
    assert [problem.pointer for problem in refused.value.problems] == ["/method/sparsity"]
