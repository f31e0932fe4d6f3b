"""What a checkpoint says of known-future columns, pooled series and resampling is checked as hostile input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pals_core.checkpoint.file import read_checkpoint
from pals_core.data.audit import profile_of
from pals_core.data.table import Table
from pals_core.errors import InvalidCheckpoint
from pals_core.feasibility import resolve
from pals_core.spec import Spec
from pals_core.training.trainer import Trainer
from tests.core.checkpoint.forgery import Change, forge, set_field, set_tensor, with_value


@pytest.fixture(scope="module")
def optioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of two pooled series with a known-future column, masked, and resampled to days."""
    values = np.random.default_rng(4).normal(size=(320, 3))
    values[::31, 0] = np.nan
    values[-3:, 1] = np.nan
    table = Table(pd.date_range("2022-01-01", periods=320, freq="12h").as_unit("us"), values, ("a", "b", "sun"), "12h")
    fields = {
        "data": {
            "horizon": 3,
            "input_len": 8,
            "known_future": ["sun"],
            "series": "pooled",
            "missing": "mask",
            "resample": "D",
        },
        "model": {"name": "transformer", "d_model": 4, "d_ff": 4, "heads": 1, "encoder_layers": 1},
        "training": {"epochs": 1, "device": "cpu"},
    }
    folder = tmp_path_factory.mktemp("optioned")
    for _ in Trainer(resolve(Spec.model_validate(fields), profile_of(table)), table, folder).run():
        pass
    return folder / "epoch-001.pals.safetensors"


def test_the_header_says_what_a_forecast_needs(optioned: Path) -> None:
    checkpoint = read_checkpoint(optioned)
    header = checkpoint.header
    assert (header.columns, header.frequency, header.resampled_from) == (("a", "b"), "D", "12h")
    assert (header.groups, header.features) == ((("a",), ("b",)), 4)
    assert np.shape(header.known_future_mean) == np.shape(header.known_future_std) == (2, 1)
    assert [end.columns for end in checkpoint.series_ends] == [("a", "sun"), ("b", "sun")]
    assert np.isnan(checkpoint.series_ends[1].values[:, 0]).tolist() == [False] * 6 + [True] * 2


HOSTILE = [
    pytest.param(set_field("known_future_mean", value=[]), "known-future", id="no means"),
    pytest.param(set_field("known_future_mean", value=[[0.0]]), "known-future", id="a series less"),
    pytest.param(set_field("known_future_std", 1, value=[1.0, 1.0]), "known-future", id="a column more"),
    pytest.param(set_field("known_future_std", 0, 0, value=0.0), "standard deviation", id="zero deviation"),
    pytest.param(set_field("known_future_std", 0, 0, value=-1.0), "standard deviation", id="negative deviation"),
    pytest.param(set_field("known_future_std", 0, 0, value=1e-320), "standard deviation", id="tiny deviation"),
    pytest.param(set_field("known_future_mean", 0, 0, value=float("inf")), "description", id="infinite mean"),
    pytest.param(set_field("known_future_mean", 0, 0, value=float("nan")), "description", id="mean that is no number"),
    pytest.param(set_field("known_future_mean", 0, 0, value="a"), "description", id="mean of letters"),
    pytest.param(set_field("columns", 0, value="sun"), "known_future", id="a target that is known"),
    pytest.param(set_field("columns", value=["a", "b", "c"]), "length", id="a series more"),
    pytest.param(set_field("resampled_from", value=None), "original frequency", id="resampled from nothing"),
    pytest.param(set_field("resampled_from", value="D"), "slower", id="resampled from the same"),
    pytest.param(set_field("resampled_from", value="x" * 65), "description", id="a long frequency"),
    pytest.param(set_field("resampled_from", value="9" * 64), "cannot be resampled", id="a number"),
    pytest.param(set_field("resampled_from", value="9" * 60 + "h"), "slower", id="a huge multiple"),
    pytest.param(set_field("frequency", value="12h"), "calendar features", id="not resampled"),
    pytest.param(set_field("spec", "data", "resample", "frequency", value="W"), "not the one its spec", id="slower"),
    pytest.param(set_field("spec", "data", "series", value="joint"), "known-future", id="joint after all"),
    pytest.param(set_tensor("series.values", with_value(0, float("inf"))), "not finite", id="infinite value"),
    pytest.param(set_tensor("series.values", lambda t: t[:1].clone()), "2 times", id="one end"),
    pytest.param(set_tensor("series.values", lambda t: t[:, :, :1].clone()), "2 columns", id="no known future"),
    pytest.param(set_tensor("series.starts", lambda t: t[:1].clone()), "2 times", id="the start of one"),
    pytest.param(set_tensor("series.starts", with_value(1, -(2**63))), "grid", id="no start"),
    pytest.param(set_field("spec", "data", "missing", value="error"), "not finite", id="missing without a mask"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_a_forged_description_is_refused(optioned: Path, tmp_path: Path, change: Change, message: str) -> None:
    forge(optioned, tmp_path / "forged", change)
    with pytest.raises(InvalidCheckpoint, match=message):
        read_checkpoint(tmp_path / "forged")


def test_a_forgery_that_changes_nothing_is_read(optioned: Path, tmp_path: Path) -> None:
    forge(optioned, tmp_path / "forged", lambda description, tensors: None)
    one, other = read_checkpoint(optioned), read_checkpoint(tmp_path / "forged")
    assert one.header == other.header
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
