"""What a caller has set torch's defaults to makes no difference to networks, and comes back."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from pals_core import backtest
from pals_core.checkpoint.file import read_checkpoint, write_checkpoint
from pals_core.checkpoint.header import StoredPrecision
from pals_core.compaction.compact import compact
from pals_core.data.table import Table
from pals_core.export.card import model_card
from pals_core.export.onnx import export_onnx
from pals_core.forecast.forecaster import load_forecaster
from pals_core.spec import Spec
from pals_core.torch_defaults import own_torch_defaults
from pals_core.training.conversion import in_precision
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
def automatic_casts() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16):
        yield


@contextmanager
def another_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def no_automatic_casts() -> Iterator[None]:
    with torch.autocast("cpu", enabled=False):
        yield


@contextmanager
def products_of_bfloat16() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


SETTINGS: tuple[Callable[[], AbstractContextManager[object]], ...] = (
    double_precision,
    another_device,
    automatic_casts,
    no_automatic_casts,
    products_of_bfloat16,
    torch.inference_mode,
    torch.no_grad,
)


@contextmanager
def all_at_once() -> Iterator[None]:
    with (
        double_precision(),
        another_device(),
        automatic_casts(),
        products_of_bfloat16(),
        torch.inference_mode(),
    ):
        yield


@pytest.mark.parametrize(
    ("name", "settings"), [*((name, [all_at_once]) for name in MODEL_NAMES), ("dlinear", list(SETTINGS))]
)
def test_training_loading_and_forecasting_are_the_same_under_any(
    name: str,
    settings: list[Callable[[], AbstractContextManager[object]]],
    series: Table,
    make_spec: Callable[..., Spec],
    tmp_path: Path,
) -> None:
    spec = make_spec(model=small_model(name), training={"epochs": 1})
    forecasts = []
    for place, setting in enumerate([own_torch_defaults, *settings]):
        folder = tmp_path / str(place)
        with setting():
            list(Trainer(spec, series, folder).run())
            forecaster = load_forecaster(folder / "epoch-001.pals.safetensors")
            inside = forecaster.forecast(series).values
        outside = forecaster.forecast(series).values
        assert np.array_equal(inside, outside), setting
        forecasts.append((folder / "epoch-001.pals.safetensors").read_bytes())
    assert len(set(forecasts)) == 1


@pytest.mark.parametrize("setting", [automatic_casts, no_automatic_casts, products_of_bfloat16])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_wide_network_trains_the_same_in_either_precision(
    precision: str,
    setting: Callable[[], AbstractContextManager[object]],
    series: Table,
    make_spec: Callable[..., Spec],
    tmp_path: Path,
) -> None:
    model = {"name": "transformer", "d_model": 64, "d_ff": 64, "heads": 2, "encoder_layers": 1}
    spec = make_spec(model=model, training={"epochs": 2, "precision": precision})
    list(Trainer(spec, series, tmp_path / "usual").run())
    with setting():
        list(Trainer(spec, series, tmp_path / "other").run())
    usual, other = (
        {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (tmp_path / name).iterdir()}
        for name in ("usual", "other")
    )
    assert usual == other


@pytest.mark.parametrize("setting", [all_at_once, torch.no_grad])
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


@pytest.mark.parametrize("name", ["nstransformer", "dlinear", "fedformer"])
def test_what_is_made_of_a_checkpoint_is_the_same(
    name: str, series: Table, make_spec: Callable[..., Spec], tmp_path: Path
) -> None:
    list(Trainer(make_spec(model=small_model(name), training={"epochs": 1}), series, tmp_path).run())
    path = tmp_path / "epoch-001.pals.safetensors"

    def made(place: str) -> tuple[dict[str, bytes], bytes, bytes]:
        export_onnx(path, tmp_path / f"{place}.onnx")
        card = model_card(path, tmp_path / place)
        smaller = compact(read_checkpoint(path)).model.state_dict()
        assert not any(weight.is_inference() for weight in smaller.values())
        weights = {name: weight.resolve_conj().numpy().tobytes() for name, weight in smaller.items()}
        write_precision(path, tmp_path / f"{place}.pals.safetensors")
        return weights, (tmp_path / f"{place}.onnx").read_bytes(), card.read_bytes()

    usual = made("usual")
    with all_at_once():
        assert made("other") == usual
    files = {file.read_bytes() for file in tmp_path.glob("*.pals.safetensors") if not file.name.startswith("epoch")}
    assert len(files) == 1


def write_precision(path: Path, output: Path) -> None:
    write_checkpoint(output, in_precision(read_checkpoint(path), StoredPrecision.INT8))


def test_of_several_threads_the_last_gives_the_default_back() -> None:
    inside, leave = threading.Barrier(3), [threading.Event(), threading.Event()]
    seen = []

    def work(number: int) -> None:
        with own_torch_defaults():
            inside.wait()
            leave[number].wait()
            seen.append(torch.get_default_dtype())

    with double_precision():
        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        inside.wait()
        for event, thread in zip(leave, threads, strict=True):
            assert torch.get_default_dtype() is torch.float32
            event.set()
            thread.join()
        assert torch.get_default_dtype() is torch.float64
    assert seen == [torch.float32] * 2


def test_the_callers_settings_come_back_even_after_an_error() -> None:
    def fail() -> None:
        with own_torch_defaults():
            assert torch.get_default_dtype() is torch.float32
            assert torch.empty(1).device.type == "cpu"
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            assert not torch.is_autocast_enabled("cpu")
            raise ValueError

    with all_at_once():
        with pytest.raises(ValueError):
            fail()
        assert torch.get_default_dtype() is torch.float64
        assert torch.empty(1).device.type == "meta"
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
