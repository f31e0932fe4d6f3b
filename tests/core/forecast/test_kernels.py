"""Forecasts with other kernels: as near as they say, of every model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pals_core.checkpoint.file import read_checkpoint
from pals_core.data.table import Table
from pals_core.errors import InvalidCheckpoint
from pals_core.forecast.forecaster import LARGEST_CHANGE, load_forecaster
from pals_core.forecast.recent import learnt_scalers
from pals_core.forecast.typical import typical_inputs
from pals_core.kernels import choice
from pals_core.kernels.choice import Kernels, choose_kernels
from pals_core.kernels.linear import Kernel
from pals_core.layers.feed_forward import FeedForward
from tests.core.kernels.machine_kernels import KERNELS, needs
from tests.core.training.small_training import MODEL_NAMES, checkpoint_of, make_spec, one_thread, series

__all__ = ["checkpoint_of", "make_spec", "one_thread", "series"]

CheckpointOf = Callable[..., Path]
# They rank numbers of which a few are kept; with less precision others may be.
RANKING = ("informer", "autoformer")


@pytest.fixture
def wins(monkeypatch: pytest.MonkeyPatch) -> Callable[[Kernel], None]:
    """Have one kernel be the fastest everywhere, in layers of any size, and the network with it."""

    def win(kernel: Kernel) -> None:
        needs(kernel)
        monkeypatch.setattr(choice, "_FEWEST_WEIGHTS", 0)
        monkeypatch.setattr(choice, "_DENSEST_CSR", 1.0)
        monkeypatch.setattr(choice, "available", kernel.__eq__)
        monkeypatch.setattr(
            choice._Stopwatch, "seconds", lambda _, asked, *__: {each: float(each is not kernel) for each in asked}
        )
        monkeypatch.setattr(choice, "_best_of_both", lambda *_, **__: (0.5, 1.0))

    return win


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_every_model_forecasts_nearly_the_same_with_every_kernel(
    name: str, kernel: Kernel, checkpoint_of: CheckpointOf, wins: Callable[[Kernel], None], series: Table
) -> None:
    wins(kernel)
    path = checkpoint_of(name)
    plain, fast = load_forecaster(path), load_forecaster(path, kernels="auto", batch_size=2)
    assert fast.kernels is not None
    used = {layer.kernel for layer in fast.kernels.layers}
    change = np.abs(fast.forecast(series).values - plain.forecast(series).values) / series.values.std(axis=0)
    if kernel in (Kernel.PACKED, Kernel.CSR):
        assert used == {kernel}
        assert change.max() <= 1e-5
    elif name not in RANKING:
        assert used == {kernel}
        assert change.max() <= 0.1
        metrics = read_checkpoint(path).header.metrics
        assert metrics is not None
        assert 0 < fast.kernels.squared_change <= LARGEST_CHANGE * metrics.mse
        with_plain_attention = name in ("itransformer", "nstransformer", "patchtst", "transformer")
        assert bool(fast.kernels.bfloat16_blocks) == (with_plain_attention and kernel is Kernel.BF16)


@pytest.mark.parametrize("is_faster", [True, False])
def test_a_kernel_takes_the_activation_that_follows_it_and_gives_it_back(
    is_faster: bool, checkpoint_of: CheckpointOf, wins: Callable[[Kernel], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    wins(Kernel.PACKED)
    monkeypatch.setattr(choice, "_best_of_both", lambda *_, **__: (1.0, 2.0) if is_faster else (2.0, 1.0))
    checkpoint = read_checkpoint(checkpoint_of("transformer"))
    model, inputs = checkpoint.build(), typical_inputs(checkpoint, 1)
    expected = model(*inputs)
    choose_kernels(model, checkpoint.build(), inputs, Kernels.FP32, 0)
    pairs = [module for module in model.modules() if isinstance(module, FeedForward)]
    assert len(pairs) == 3
    assert {type(pair.activation) for pair in pairs} == {nn.Identity if is_faster else nn.GELU}
    assert {isinstance(pair.expand, nn.Linear) for pair in pairs} == {not is_faster}
    torch.testing.assert_close(model(*inputs), expected, rtol=0, atol=1e-5 if is_faster else 0)


def test_unless_asked_nothing_is_chosen(checkpoint_of: CheckpointOf, wins: Callable[[Kernel], None]) -> None:
    wins(Kernel.PACKED)
    path = checkpoint_of("nstransformer")
    forecaster = load_forecaster(path)
    assert forecaster.kernels is None
    assert np.array_equal(forecaster.forecast().values, load_forecaster(path, kernels="torch").forecast().values)


@pytest.mark.parametrize("kernels", ["fp32", "auto"])
def test_measured_on_this_machine_it_is_near_and_not_slower(kernels: str, checkpoint_of: CheckpointOf) -> None:
    path = checkpoint_of("nstransformer", d_model=64, d_ff=128)
    fast = load_forecaster(path, kernels)
    assert fast.kernels is not None
    assert fast.kernels.batch_size == 1
    assert {layer.layer for layer in fast.kernels.layers} == {
        f"{place}.{name}"
        for place in ("encoder.layers.0", "encoder.layers.1", "decoder.layers.0")
        for part, names in (
            ("feed_forward", ("expand", "contract")),
            ("attention", ("query", "key", "value", "output")),
        )
        for name in (
            [f"{part}.{one}" for one in names]
            if part == "feed_forward" or place.startswith("encoder")
            else [f"{kind}_attention.{one}" for kind in ("self", "cross") for one in names]
        )
    }
    assert all(layer.microseconds <= layer.dense_microseconds for layer in fast.kernels.layers)
    assert fast.kernels.microseconds <= fast.kernels.dense_microseconds
    if kernels == "fp32":
        assert {layer.kernel for layer in fast.kernels.layers} <= {Kernel.DENSE, Kernel.PACKED, Kernel.CSR}
        np.testing.assert_allclose(fast.forecast().values, load_forecaster(path).forecast().values, rtol=1e-5)


def test_typical_inputs_are_the_series_ends_and_always_the_same(checkpoint_of: CheckpointOf) -> None:
    checkpoint = read_checkpoint(checkpoint_of("nstransformer"))
    once, again = typical_inputs(checkpoint, 3), typical_inputs(checkpoint, 3)
    assert all(np.array_equal(one, other) for one, other in zip(once, again, strict=True))
    values = once[0].numpy()
    assert values.shape == (3, 12, 3)
    assert not np.array_equal(values[0], values[1])
    assert np.abs(values[1] - values[0]).max() < 1
    scaled = learnt_scalers(checkpoint.header, 0)[0].scale(checkpoint.series_ends[0].values)
    np.testing.assert_allclose(values[0], scaled, atol=1e-5)


def test_wrong_wishes_are_refused(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    path = checkpoint_of("dlinear")
    with pytest.raises(ValueError, match="fp16"):
        load_forecaster(path, kernels="fp16")
    for wrong in (0, 2.5, True):
        with pytest.raises(ValueError, match=f"batch_size is {wrong}"):
            load_forecaster(path, kernels="fp32", batch_size=wrong)  # type: ignore[arg-type]
    (tmp_path / "file").write_bytes(b"no checkpoint")
    with pytest.raises(InvalidCheckpoint):
        load_forecaster(tmp_path / "file", kernels="auto")
