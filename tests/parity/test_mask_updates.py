"""Masks after an update equal those of the method's authors' program, bit for bit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from pals_core.sparsity.decision import Move
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.method import Decision
from pals_core.sparsity.pals import PalsController
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.spec import PalsMethodSpec

FALLBACK = Path(__file__).parents[2].parent / "shared" / "reference"
FOLDER = Path(os.environ.get("PALS_REFERENCE_DIR", FALLBACK))
FILES = sorted(FOLDER.glob("mask_updates*.safetensors"))


def test_the_reference_masks_are_at_hand() -> None:
    if not FILES:
        reason = f"no mask_updates*.safetensors in {FOLDER}; set PALS_REFERENCE_DIR"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def cases() -> list[Any]:
    found = []
    for path in FILES:
        with safe_open(path, "pt") as file:
            listed = json.loads(file.metadata()["cases"])
        found += [pytest.param(path, case, id=f"{path.stem}-{case['case']}-{case['status']}") for case in listed]
    return found


@pytest.mark.parametrize(("path", "case"), cases())
def test_an_update_gives_the_published_masks(path: Path, case: dict[str, Any]) -> None:
    with safe_open(path, "pt") as file:
        prefix = case["case"] + "."
        tensors = {key.removeprefix(prefix): file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
    names = sorted({key.split(".")[0] for key in tensors})
    parameters = {name: torch.nn.Parameter(tensors[f"{name}.weight"]) for name in names}
    masks = MaskSet(parameters.items())
    for name in names:
        parameters[name].grad = tensors[f"{name}.grad"]
        masks[name] = tensors[f"{name}.mask_before"].bool()
    spec = PalsMethodSpec(prune_rate_factor=case["gamma"], update_interval=1)
    controller = PalsController(spec, masks, UpdateSchedule.of(spec, epochs=1, steps_per_epoch=1), seed=0)

    controller.update(Decision(1, Move(case["status"]), 1.0, None, masks.sparsity, case["zeta"]))

    for name, (before, after) in zip(names, case["nonzeros_before_after"], strict=True):
        assert int(tensors[f"{name}.mask_before"].sum()) == before
        assert masks.active[name] == after
        assert torch.equal(masks[name], tensors[f"{name}.mask_after"].bool())
