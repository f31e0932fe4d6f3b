"""Every forecaster goes the whole way: trained sparse, packed, read back, forecasting the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pals_core.checkpoint.file import read_checkpoint
from pals_core.data.table import Table
from pals_core.errors import InvalidCheckpoint
from pals_core.forecast.forecaster import load_forecaster
from pals_core.spec import Spec
from pals_core.training.events import CheckpointSaved, Finished
from pals_core.training.trainer import Trainer
from tests.core.checkpoint.forgery import forge, set_tensor, with_value
from tests.core.training.small_training import MODEL_NAMES, small_model


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_a_trained_model_reloads_to_the_same_function(
    name: str, series: Table, make_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    spec = make_spec(model=small_model(name), training={"epochs": 1})
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
    spec = make_spec(model=small_model(name), training={"epochs": 1})
    *_, saved, _finished = Trainer(spec, series, tmp_path).run()
    assert isinstance(saved, CheckpointSaved)
    forged = tmp_path / "forged"
    forge(Path(saved.path), forged, set_tensor(buffer, with_value(0, index)))
    with pytest.raises(InvalidCheckpoint, match="outside of 0 to"):
        read_checkpoint(forged)
