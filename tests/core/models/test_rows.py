"""Linear layers as wide as the network are given rows that lie one after the other, which torch multiplies at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pals_core.models.registry import build_forecaster
from pals_core.spec import Spec

D_MODEL = 16


@pytest.mark.parametrize(
    "model",
    [
        {"name": "transformer", "decoder_layers": 2},
        {"name": "nstransformer"},
        {"name": "informer"},
        {"name": "informer", "published_axis_order": True},
        {"name": "autoformer"},
        {"name": "fedformer"},
        {"name": "fedformer", "published_axis_order": True},
        {"name": "patchtst", "patch_len": 4, "stride": 2},
        {"name": "itransformer"},
    ],
    ids=str,
)
def test_every_wide_linear_layer_is_given_rows_one_after_the_other(model: dict[str, Any]) -> None:
    data = {"input_len": 12, "label_len": 6, "horizon": 5}
    spec = Spec.model_validate({"data": data, "model": model | {"d_model": D_MODEL, "d_ff": 24, "heads": 4}})
    forecaster = build_forecaster(spec, 3, 4).eval()
    seen: dict[str, bool] = {}
    for name, layer in forecaster.named_modules():
        if isinstance(layer, nn.Linear) and min(layer.weight.shape) >= D_MODEL:
            layer.register_forward_pre_hook(_note_in(seen, name))
    with torch.inference_mode():
        forecaster(torch.randn(2, 12, 3), torch.randn(2, 12, 4), torch.randn(2, 11, 3), torch.randn(2, 11, 4))
    assert len(seen) > 4
    assert [name for name, in_a_row in seen.items() if not in_a_row] == []


def _note_in(seen: dict[str, bool], name: str) -> Any:
    def note(_layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen[name] = given[0].is_contiguous()

    return note
