from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pals_core.models.registry import build_forecaster
from pals_core.models.without_values import WithoutValues
from pals_core.spec import MODEL_SPECS, Spec

NAMES = [spec.model_fields["name"].default for spec in MODEL_SPECS]
DATA = {"horizon": 8, "input_len": 32, "label_len": 16, "series": "joint"}
BUILD = """
import sys, torch
from pals_core.models.registry import build_forecaster
from pals_core.models.without_values import WithoutValues
from pals_core.spec import Spec
for name in sys.argv[1:]:
    spec = Spec.model_validate({"data": %r, "model": name})
    with torch.device("meta"), WithoutValues():
        build_forecaster(spec, 3, 4)
    print(name, *sorted({"torch._dynamo", "sympy"} & set(sys.modules)))
"""


@pytest.mark.parametrize("name", NAMES)
def test_what_is_computed_is_as_always_and_nothing_is_drawn(name: str) -> None:
    spec = Spec.model_validate({"data": DATA, "model": {"name": name} | ({"d_ff": 64} if "linear" not in name else {})})
    usual = build_forecaster(spec, 3, 4)
    before = torch.get_rng_state()
    with WithoutValues():
        model = build_forecaster(spec, 3, 4)
    assert torch.equal(torch.get_rng_state(), before)
    parameters = dict(usual.named_parameters())
    assert {key: value.shape for key, value in model.named_parameters()} == {
        key: value.shape for key, value in parameters.items()
    }
    buffers = dict(usual.named_buffers())
    assert all(torch.equal(buffer, buffers[key]) for key, buffer in model.named_buffers())


def test_a_description_of_a_network_does_not_import_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", BUILD % DATA, *NAMES], capture_output=True, text=True, check=True)
    assert done.stdout.split() == NAMES
