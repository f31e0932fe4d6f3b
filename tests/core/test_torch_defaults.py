"""What a caller has set torch's defaults to makes no difference to networks, and comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from pals_core import backtest
from pals_core.data.table import Table
from pals_core.forecast.forecaster import load_forecaster
from pals_core.spec import Spec
from pals_core.torch_defaults import own_torch_defaults
from pals_core.training.trainer import Trainer
from tests.core.training.small_training import MODEL_NAMES, make_spec, one_thread, series, small_model

__all__ = ["make_spec", "one_thread", "series"]


@contextmanager
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def another_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


SETTINGS: tuple[Callable[[], AbstractContextManager[object]], ...] = (
    double_precision,
    another_device,
    torch.inference_mode,
    torch.no_grad,
)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_training_loading_and_forecasting_are_the_same_under_any(
    name: str, series: Table, make_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    spec = make_spec(model=small_model(name), training={"epochs": 1})
    forecasts = []
    for place, setting in enumerate((own_torch_defaults, *SETTINGS)):
        folder = tmp_path / str(place)
        folder.mkdir()
        with setting():
            list(Trainer(spec, series, folder).run())
            forecaster = load_forecaster(folder / "epoch-001.pals.safetensors")
            inside = forecaster.forecast(series).values
        outside = forecaster.forecast(series).values
        assert np.array_equal(inside, outside), setting
        forecasts.append((folder / "epoch-001.pals.safetensors").read_bytes())
    assert len(set(forecasts)) == 1


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_backtest_is_the_same(
    setting: Callable[[], AbstractContextManager[object]],
    series: Table,
    make_spec: Callable[..., Spec],
    tmp_path: Path,
) -> None:
    list(Trainer(make_spec(training={"epochs": 1}), series, tmp_path).run())
    path = tmp_path / "epoch-001.pals.safetensors"
    with setting():
        found = backtest(path, series, stride=20)
    assert found == backtest(path, series, stride=20)


def test_the_callers_settings_come_back_even_after_an_error() -> None:
    def fail() -> None:
        with own_torch_defaults():
            assert torch.get_default_dtype() is torch.float32
            assert torch.empty(1).device.type == "cpu"
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            raise ValueError

    with double_precision(), another_device(), torch.inference_mode():
        with pytest.raises(ValueError):
            fail()
        assert torch.get_default_dtype() is torch.float64
        assert torch.empty(1).device.type == "meta"
        assert torch.is_inference_mode_enabled()
