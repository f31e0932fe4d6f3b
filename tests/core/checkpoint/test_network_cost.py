from __future__ import annotations

import pytest
from pydantic import ValidationError

from pals_core.checkpoint.header import MaskedLayer, NetworkCost, Product, ProductKind

LINEAR = MaskedLayer(shape=(6, 10), dtype="float32", active=60, flops_dense=2 * 7 * 60, bytes=240)
CONVOLUTION = MaskedLayer(shape=(4, 2, 3), dtype="float32", active=6, flops_dense=2 * 5 * 24, bytes=28)
FOURIER = MaskedLayer(shape=(2, 3, 3, 5), dtype="complex64", active=9, flops_dense=8 * 90, bytes=81)
ATTENTION = Product(module="attention", kind=ProductKind.MATRIX, flops=1000)


@pytest.mark.parametrize("layer", [LINEAR, CONVOLUTION, FOURIER])
def test_with_half_of_its_weights_a_layer_costs_half_as_much(layer: MaskedLayer) -> None:
    dense = layer.model_copy(update={"active": layer.weights})
    half = layer.model_copy(update={"active": layer.weights // 2})
    assert dense.flops_sparse == layer.flops_dense
    assert half.flops_sparse == layer.flops_dense // 2
    assert half.sparsity == 0.5


def test_a_network_is_the_sum_of_its_layers_and_its_products_cost_the_same_dense_and_sparse() -> None:
    cost = NetworkCost(layers={"a": LINEAR, "b": CONVOLUTION, "c": FOURIER}, products=(ATTENTION,))
    assert (cost.maskable_parameters, cost.active_parameters) == (60 + 24 + 90, 60 + 6 + 9)
    assert cost.sparsity == pytest.approx(1 - 75 / 174)
    assert cost.flops_dense == 840 + 240 + 720 + 1000
    assert cost.flops_sparse == 840 + 60 + 72 + 1000
    assert cost.bytes == 240 + 28 + 81


@pytest.mark.parametrize(
    "change", [{"shape": (6,)}, {"shape": (0, 10)}, {"dtype": "int8"}, {"flops_dense": -1}, {"bytes": -1}]
)
def test_a_layer_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MaskedLayer.model_validate(LINEAR.model_dump() | change)
