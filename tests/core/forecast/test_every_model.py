"""Every forecaster goes the whole way: trained sparse, packed, read back, forecasting the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pals_core.checkpoint.file import read_checkpoint
from pals_core.data.table import Table
from pals_core.errors import InvalidCheckpoint
from pals_core.forecast.forecaster import load_forecaster
from pals_core.spec import MODEL_SPECS, Spec
from pals_core.training.events import CheckpointSaved, Finished
from pals_core.training.trainer import Trainer
from tests.core.checkpoint.forgery import forge, set_tensor, with_value

SIZES = {"d_model": 16, "d_ff": 32, "heads": 2, "encoder_layers": 2}
SMALLER = {"patch_len": 4, "stride": 2, "modes": 3, "moving_avg": 5, "factor": 1}


def small(name: str) -> dict[str, Any]:
    """The spec of a model at a size that trains in a moment."""
    [fields] = [spec.model_fields for spec in MODEL_SPECS if spec.model_fields["name"].default == name]
    return {"name": name} | {key: value for key, value in (SIZES | SMALLER).items() if key in fields}


@pytest.mark.parametrize("name", [spec.model_fields["name"].default for spec in MODEL_SPECS])
def test_a_trained_model_reloads_to_the_same_function(
    name: str, series: Table, make_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    spec = make_spec(model=small(name), training={"epochs": 1})
    events = list(Trainer(spec, series, tmp_path).run())
    saved, finished = events[-2], events[-1]
    assert isinstance(saved, CheckpointSaved)
    assert isinstance(finished, Finished)
    assert finished.result.sparsity > 0

    first, second = load_forecaster(Path(saved.path)), load_forecaster(Path(saved.path))
    torch.manual_seed(1)
    once = first.forecast(series).values
    torch.manual_seed(2)
    again = second.forecast(series).values
    assert np.isfinite(once).all()
    assert np.array_equal(once, again)
    weights = read_checkpoint(Path(saved.path)).weights
    assert finished.result.dense_bytes == sum(
        weight.nbytes for weight in weights.values() if weight.is_floating_point() or weight.is_complex()
    ) - sum(weight.nbytes for key, weight in weights.items() if "running_" in key)


@pytest.mark.parametrize(
    ("name", "buffer"),
    [
        ("informer", "encoder.layers.0.attention.sampled_keys"),
        ("fedformer", "encoder.layers.0.attention.block.frequencies"),
    ],
)
@pytest.mark.parametrize("index", [-1, 10**6])
def test_an_index_out_of_range_is_refused(
    name: str, buffer: str, index: int, series: Table, make_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    spec = make_spec(model=small(name), training={"epochs": 1})
    *_, saved, _finished = Trainer(spec, series, tmp_path).run()
    assert isinstance(saved, CheckpointSaved)
    forged = tmp_path / "forged"
    forge(Path(saved.path), forged, set_tensor(buffer, with_value(0, index)))
    with pytest.raises(InvalidCheckpoint, match="outside of 0 to"):
        read_checkpoint(forged)
