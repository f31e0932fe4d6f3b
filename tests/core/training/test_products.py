"""Linear layers by oneDNN: the same products and gradients, chosen by rule, and part of what a training depends on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pals_core.data.table import Table
from pals_core.spec import Spec
from pals_core.training import products
from pals_core.training.events import Message, Started, StateSaved, TrainingEvent
from pals_core.training.forward import Arithmetic, choose_arithmetic
from pals_core.training.products import LinearLayersByOneDnn, Products, choose_products, has_onednn
from pals_core.training.trainer import Trainer

MakeSpec = Callable[..., Spec]
CPU, GPU = torch.device("cpu"), torch.device("cuda")
ZEN = {"cpu_name": "AMD EPYC 9555", "avx512_f": True}

needs_onednn = pytest.mark.skipif(not has_onednn(), reason="this PyTorch has no oneDNN for linear layers")


@needs_onednn
@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (2, 3, 5, 7), (1, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_pytorch(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(7, 4, bias=bias)
    x = torch.randn(*shape[:-2], shape[-1], shape[-2]).transpose(-1, -2).requires_grad_()  # not contiguous
    weights = torch.randn(*shape[:-1], 4)

    def outcome() -> list[Tensor]:
        y = layer(x)
        return [y, *torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()])]

    expected = outcome()
    with LinearLayersByOneDnn():
        found = outcome()
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.stride() == theirs.stride() or ours.is_contiguous()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@needs_onednn
def test_only_fp32_matrices_are_multiplied_by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    multiplied: list[torch.Size] = []
    original = products.linear_by_onednn

    def watched(x: Tensor, *rest: Any) -> Tensor:
        multiplied.append(x.shape)
        return original(x, *rest)

    monkeypatch.setattr(products, "linear_by_onednn", watched)
    weight = torch.randn(4, 7)
    with LinearLayersByOneDnn():
        for x in (torch.randn(7), torch.randn(0, 7), torch.randn(3, 7, dtype=torch.float64)):
            assert F.linear(x, weight.to(x.dtype)).shape == (*x.shape[:-1], 4)
        assert multiplied == []
        F.linear(torch.randn(3, 7), weight)
    F.linear(torch.randn(3, 7), weight)
    assert multiplied == [(3, 7)]


@needs_onednn
def test_gradients_stop_where_none_is_wanted() -> None:
    x, weight = torch.randn(3, 7), torch.randn(4, 7, requires_grad=True)
    with LinearLayersByOneDnn():
        F.linear(x, weight).sum().backward()
    assert x.grad is None
    assert weight.grad is not None


@pytest.mark.parametrize(
    ("processor", "device", "chosen"),
    [
        (ZEN, CPU, Products.ONEDNN),
        (ZEN, GPU, Products.TORCH),
        (ZEN | {"avx512_f": False}, CPU, Products.TORCH),
        (ZEN | {"cpu_name": "Intel(R) Xeon(R) 6980P"}, CPU, Products.TORCH),
        ({}, CPU, Products.TORCH),
    ],
)
def test_onednn_multiplies_on_amd_processors_with_avx512(
    monkeypatch: pytest.MonkeyPatch, processor: dict[str, object], device: torch.device, chosen: Products
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    monkeypatch.setattr(products, "has_onednn", lambda: True)
    assert choose_products(device) is chosen


def test_without_onednn_pytorch_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: ZEN)
    monkeypatch.setattr(products, "has_onednn", lambda: False)
    assert choose_products(CPU) is Products.TORCH


@pytest.mark.parametrize(("precision", "chosen"), [("fp32", Products.ONEDNN), ("bf16", Products.TORCH)])
def test_onednn_is_for_single_precision(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, precision: str, chosen: Products
) -> None:
    monkeypatch.setattr("pals_core.training.forward.choose_products", lambda device: Products.ONEDNN)
    assert choose_arithmetic(make_spec(training={"precision": precision}), CPU).products is chosen


@needs_onednn
def test_a_training_by_onednn_resumes_to_the_same_bytes_and_says_when_it_goes_on_by_another(
    series: Table, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(model={"name": "transformer", "d_model": 16, "d_ff": 16, "heads": 2})
    state = tmp_path / "kept.safetensors"

    def train(name: str, by: Products, resume_from: Path | None = None) -> tuple[list[TrainingEvent], dict[str, bytes]]:
        monkeypatch.setattr("pals_core.training.loop.choose_arithmetic", lambda spec, device: Arithmetic(products=by))
        folder = tmp_path / name
        folder.mkdir()
        trainer = Trainer(spec, series, folder, resume_from=resume_from, state_interval_seconds=0)
        events = []
        for event in trainer.run():
            events.append(event)
            if isinstance(event, StateSaved) and not state.exists():
                shutil.copy(event.path, state)
        return events, {path.name: path.read_bytes() for path in folder.iterdir()}

    _, whole = train("whole", Products.ONEDNN)
    same_events, same = train("same", Products.ONEDNN, state)
    other_events, _ = train("other", Products.TORCH, state)

    assert same == whole
    assert not any(isinstance(event, Message) for event in same_events)
    started = other_events[0]
    assert isinstance(started, Started)
    assert not started.reproducible
    said = [event.message for event in other_events if isinstance(event, Message)]
    assert any("resumed with products torch after products onednn" in message for message in said)
