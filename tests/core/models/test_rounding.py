"""In bfloat16 whole stacks of layers are: one number of single precision added would make all that follow it so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pals_core.models.registry import build_forecaster
from pals_core.spec import Spec


@pytest.mark.parametrize(
    "model",
    [
        {"name": "transformer", "decoder_layers": 2},
        {"name": "nstransformer"},
        {"name": "informer"},
        {"name": "autoformer"},
        {"name": "fedformer"},
        {"name": "patchtst", "patch_len": 4, "stride": 2},
        {"name": "itransformer"},
    ],
    ids=str,
)
def test_every_norm_reads_and_writes_what_the_forward_pass_computes_in(model: dict[str, Any]) -> None:
    data = {"input_len": 12, "label_len": 6, "horizon": 5}
    spec = Spec.model_validate({"data": data, "model": model | {"d_model": 16, "d_ff": 24, "heads": 4}})
    forecaster = build_forecaster(spec, 3, 4)
    seen: set[torch.dtype] = set()

    def note(_layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        seen.update((given[0].dtype, output.dtype))

    norms = [layer for layer in forecaster.modules() if isinstance(layer, nn.LayerNorm)]
    for norm in norms:
        norm.register_forward_hook(note)
    inputs = [torch.randn(2, steps, columns) for steps, columns in ((12, 3), (12, 4), (11, 3), (11, 4))]
    with torch.autocast("cpu", torch.bfloat16):
        forecaster(*inputs)
    assert len(norms) > 1
    assert seen == {torch.bfloat16}
    seen.clear()
    forecaster(*inputs)
    assert seen == {torch.float32}
