from __future__ import annotations

from typing import get_args

import pytest
import torch

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
    restored.masks.load_state_dict(bench.masks.state_dict())
    restored.network.load_state_dict(bench.network.state_dict())
    tensors = {name: tensor.clone() for name, tensor in bench.method.state_tensors().items()}
    restored.method.load_state(bench.method.state_dict(), tensors)
    restored.gradients.set_state(bench.gradients.get_state())
    for one in (bench, restored):
        one.steps(23)
    assert all(torch.equal(bench.masks[name], restored.masks[name]) for name in bench.masks)
