from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pals_core.checkpoint.comparison import compare
from pals_core.checkpoint.file import Checkpoint, PackedMasks, read_checkpoint
from pals_core.data.table import Table
from pals_core.spec import Spec
from pals_core.training.trainer import Trainer

NAME = "projection.weight"


@pytest.fixture(scope="module")
def checkpoint(best_checkpoint: Path) -> Checkpoint:
    return read_checkpoint(best_checkpoint)


def test_a_checkpoint_does_not_differ_from_itself(checkpoint: Checkpoint) -> None:
    differences = compare(checkpoint, checkpoint)
    assert (differences.fields, differences.other_tensors, differences.overlap) == ((), (), 1.0)
    assert [tensor.name for tensor in differences.tensors] == list(checkpoint.weights)
    assert {tensor.distance for tensor in differences.tensors} == {0.0}


def test_distance_and_overlap_are_those_of_the_tensors(checkpoint: Checkpoint) -> None:
    mask = torch.zeros_like(checkpoint.masks[NAME])
    mask[0, :4] = True
    other_mask = torch.zeros_like(mask)
    other_mask[0, 1:7] = True
    first, second = (
        replace(
            checkpoint,
            weights=dict(checkpoint.weights) | {NAME: value * chosen},
            masks=PackedMasks.of(dict(checkpoint.masks) | {NAME: chosen}),
        )
        for value, chosen in ((3.0, mask), (-1.0, other_mask))
    )
    differences = compare(first, second)
    [found] = [tensor for tensor in differences.tensors if tensor.name == NAME]
    assert (found.active, found.overlap) == ((4, 6), 3 / 7)
    assert found.distance == pytest.approx((3 * 4**2 + 3**2 + 3) ** 0.5 / (4 * 3**2) ** 0.5)
    assert differences.overlap is not None
    assert 0 < differences.overlap < 1


def test_another_network_has_other_fields_and_tensors(
    checkpoint: Checkpoint, series: Table, make_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    for _ in Trainer(make_spec(model={"name": "dlinear"}, training={"epochs": 1}), series, tmp_path).run():
        pass
    differences = compare(checkpoint, read_checkpoint(tmp_path / "epoch-001.pals.safetensors"))
    fields = {field.pointer: (field.first, field.second) for field in differences.fields}
    assert fields["/spec/model/name"] == ("nstransformer", "dlinear")
    assert fields["/spec/model/d_ff"] == (32, None)
    assert fields["/spec/training/epochs"] == (3, 1)
    assert NAME in differences.other_tensors
    assert "trend.weight" in differences.other_tensors
    assert (differences.tensors, differences.overlap) == ((), None)
