"""A small series and a small training, shared by the tests of training, checkpoints and forecasts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pals_core.data.audit import profile_of
from pals_core.data.table import Table
from pals_core.feasibility import check, resolve
from pals_core.spec import MODEL_SPECS, Spec
from pals_core.training.events import TrainingEvent
from pals_core.training.trainer import Trainer

MakeSpec = Callable[..., Spec]

MODEL_NAMES = [spec.model_fields["name"].default for spec in MODEL_SPECS]
SIZES = {"d_model": 16, "d_ff": 32, "heads": 2, "encoder_layers": 2}
SMALLER = {"patch_len": 4, "stride": 2, "modes": 3, "moving_avg": 5, "factor": 1}


def small_model(name: str) -> dict[str, Any]:
    """The spec of a model at a size that trains in a moment."""
    [fields] = [spec.model_fields for spec in MODEL_SPECS if spec.model_fields["name"].default == name]
    return {"name": name} | {key: value for key, value in (SIZES | SMALLER).items() if key in fields}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def series() -> Table:
    """Three daily columns of 260 steps: two waves, of which one rises, and noise."""
    steps = np.arange(260)
    noise = np.random.default_rng(5).normal(size=(260, 3))
    values = np.stack((10 + np.sin(steps / 7), 200 + steps / 20 + 5 * np.cos(steps / 3), 0 * steps), axis=1)
    times = pd.date_range("2021-03-01", periods=260, freq="D").as_unit("us")
    return Table(times, values + 0.1 * noise, ("calm", "rising", "noise"), "D")


@pytest.fixture(scope="session")
def short(series: Table) -> Table:
    """Its first 110 steps."""
    return Table(series.times[:110], series.values[:110].copy(), series.columns, series.frequency)


@pytest.fixture(scope="session")
def make_spec(series: Table) -> MakeSpec:
    """Build the resolved spec of a quick training; keyword arguments replace fields of its four parts."""

    def make(table: Table = series, /, **parts: Any) -> Spec:
        model = {"name": "nstransformer", "d_model": 16, "d_ff": 32, "heads": 2, "encoder_layers": 1}
        fields: dict[str, Any] = {
            "data": {"input_len": 12, "label_len": 6, "horizon": 4},
            "model": model,
            "method": {"name": "pals", "update_interval": 2, "prune_rate_factor": 1.5},
            "training": {"epochs": 3, "seed": 3, "learning_rate": 1e-3, "device": "cpu"},
        }
        for part, changes in parts.items():
            fields[part] = changes if isinstance(changes, str) or "name" in changes else fields[part] | changes
        profile = profile_of(table)
        spec = resolve(Spec.model_validate(fields), profile)
        assert not check(spec, profile)
        return spec

    return make


@pytest.fixture(scope="session")
def trained(series: Table, make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory) -> list[TrainingEvent]:
    """The events of one whole training; its checkpoint files lie where they say."""
    folder = tmp_path_factory.mktemp("trained")
    return list(Trainer(make_spec(), series, folder).run())


@pytest.fixture(scope="session")
def best_checkpoint(trained: list[TrainingEvent]) -> Path:
    saved = trained[-2]
    assert saved.type == "checkpoint"
    return Path(saved.path)


@pytest.fixture(scope="session")
def checkpoint_of(series: Table, make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Give the best checkpoint of a sparse training of one epoch, of a model by name; trained when first asked for.

    Keyword arguments replace fields of the model's spec, `data` those of the data's and `table` the series.
    """
    paths: dict[str, Path] = {}

    def train_once(name: str, *, data: dict[str, Any] | None = None, table: Table = series, **model: Any) -> Path:
        key = f"{name} {data} {table.frequency} {table.columns} {model}"
        if key not in paths:
            fields = {"model": small_model(name) | model, "training": {"epochs": 1}} | ({"data": data} if data else {})
            events = list(Trainer(make_spec(table, **fields), table, tmp_path_factory.mktemp(name)).run())
            saved = events[-2]
            assert saved.type == "checkpoint"
            paths[key] = Path(saved.path)
        return paths[key]

    return train_once
