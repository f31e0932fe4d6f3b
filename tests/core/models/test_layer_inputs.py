"""What layers are given.

Linear layers as wide as the network are given rows that lie one after the other, which torch multiplies at once. In
bfloat16 whole stacks of layers are: one number of single precision added would make all that follow it so.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pals_core.models.registry import build_forecaster
from pals_core.spec import Spec

D_MODEL = 16
FORECASTERS: list[dict[str, Any]] = [
    {"name": "transformer", "decoder_layers": 2},
    {"name": "nstransformer"},
    {"name": "informer"},
    {"name": "informer", "published_axis_order": True},
    {"name": "autoformer"},
    {"name": "fedformer"},
    {"name": "fedformer", "published_axis_order": True},
    {"name": "patchtst", "patch_len": 4, "stride": 2},
    {"name": "itransformer"},
]


def _forecaster(model: dict[str, Any]) -> nn.Module:
    data = {"input_len": 12, "label_len": 6, "horizon": 5}
    spec = Spec.model_validate({"data": data, "model": model | {"d_model": D_MODEL, "d_ff": 24, "heads": 4}})
    return build_forecaster(spec, 3, 4)


def _inputs() -> list[Tensor]:
    return [torch.randn(2, steps, columns) for steps, columns in ((12, 3), (12, 4), (11, 3), (11, 4))]


@pytest.mark.parametrize("model", FORECASTERS, ids=str)
def test_every_wide_linear_layer_is_given_rows_one_after_the_other(model: dict[str, Any]) -> None:
    forecaster = _forecaster(model).eval()
    seen: dict[str, bool] = {}
    for name, layer in forecaster.named_modules():
        if isinstance(layer, nn.Linear) and min(layer.weight.shape) >= D_MODEL:
            layer.register_forward_pre_hook(_note_in(seen, name))
    with torch.inference_mode():
        forecaster(*_inputs())
    assert len(seen) > 4
    assert [name for name, in_a_row in seen.items() if not in_a_row] == []


@pytest.mark.parametrize("model", FORECASTERS, ids=str)
def test_every_norm_reads_and_writes_what_the_forward_pass_computes_in(model: dict[str, Any]) -> None:
    forecaster = _forecaster(model)
    seen: set[torch.dtype] = set()

    def note(_layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        seen.update((given[0].dtype, output.dtype))

    norms = [layer for layer in forecaster.modules() if isinstance(layer, nn.LayerNorm)]
    for norm in norms:
        norm.register_forward_hook(note)
    with torch.autocast("cpu", torch.bfloat16):
        forecaster(*_inputs())
    assert len(norms) > 1
    assert seen == {torch.bfloat16}
    seen.clear()
    forecaster(*_inputs())
    assert seen == {torch.float32}


def _note_in(seen: dict[str, bool], name: str) -> Any:
    def note(_layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen[name] = given[0].is_contiguous()

    return note
