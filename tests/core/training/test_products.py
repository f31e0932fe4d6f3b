"""Linear layers by oneDNN: the same products and gradients, chosen by rule, and part of what a training depends on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pals_core.data.table import Table
from pals_core.data.windows import make_windows
from pals_core.models.registry import build_forecaster
from pals_core.spec import Spec
from pals_core.training import products
from pals_core.training.arithmetic import Arithmetic, Products
from pals_core.training.events import Message, Started, StateSaved, TrainingEvent
from pals_core.training.forward import ForwardPass, choose_arithmetic
from pals_core.training.gradient import backpropagate
from pals_core.training.products import LinearLayersByOneDnn, choose_products, has_onednn
from pals_core.training.trainer import Trainer
from tests.core.training.small_training import MODEL_NAMES, small_model

MakeSpec = Callable[..., Spec]
CPU, GPU = torch.device("cpu"), torch.device("cuda")
LINEAR = ("dlinear", "nlinear")
ZEN = {"cpu_name": "AMD EPYC 9555", "avx512_f": True}

needs_onednn = pytest.mark.skipif(not has_onednn(), reason="this PyTorch has no oneDNN for linear layers")


@pytest.fixture
def multiplied(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of what oneDNN has been given to multiply."""
    shapes: list[torch.Size] = []
    original = products.linear_by_onednn

    def watched(x: Tensor, *rest: Any) -> Tensor:
        shapes.append(x.shape)
        return original(x, *rest)

    monkeypatch.setattr(products, "linear_by_onednn", watched)
    return shapes


def outcome(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of input and parameters that ask for one."""
    y = layer(x)
    wanted = [tensor for tensor in (x, *layer.parameters()) if tensor.requires_grad]
    return [y, *torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum(), wanted)]


SHAPES: dict[str, Callable[[], Tensor]] = {
    "rows": lambda: torch.randn(5, 7),
    "one row": lambda: torch.randn(1, 7),
    "windows": lambda: torch.randn(3, 5, 7),
    "four dimensions": lambda: torch.randn(2, 3, 5, 7),
    "transposed": lambda: torch.randn(3, 7, 5).transpose(1, 2),
    "expanded": lambda: torch.randn(1, 7).expand(4, 7),
    "overlapping": lambda: torch.randn(1, 19).unfold(1, 7, 3),
}


@needs_onednn
@pytest.mark.parametrize("inputs", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_pytorch(inputs: str, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(7, 4, bias=bias)
    x = SHAPES[inputs]().requires_grad_()

    expected = outcome(layer, x)
    with LinearLayersByOneDnn():
        found = outcome(layer, x)

    assert len(found) == 3 + bias
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@needs_onednn
@pytest.mark.parametrize("frozen", ["weight", "bias", "x"])
def test_what_asks_for_no_gradient_gets_none_and_the_others_theirs(frozen: str) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(7, 4), torch.randn(3, 7, requires_grad=True)
    (x if frozen == "x" else getattr(layer, frozen)).requires_grad_(False)

    expected = outcome(layer, x)
    with LinearLayersByOneDnn():
        found = outcome(layer, x)

    assert len(found) == 3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@needs_onednn
def test_a_gradient_that_is_one_number_everywhere_and_a_change_in_place() -> None:
    layer, x = nn.Linear(7, 4), torch.randn(2, 3, 7)
    gradients = []
    for products_of in (nullcontext(), LinearLayersByOneDnn()):
        with products_of:
            layer(x).add_(1).sum().backward()
        gradients.append([parameter.grad for parameter in layer.parameters()])
        layer.zero_grad(set_to_none=True)
    torch.testing.assert_close(gradients[0], gradients[1])


@needs_onednn
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_every_forecaster_has_the_same_forecasts_and_gradients(series: Table, make_spec: MakeSpec, name: str) -> None:
    spec = make_spec(model=small_model(name) | ({"dropout": 0.0} if name not in LINEAR else {}))
    windows = make_windows(series, spec.data, CPU, torch.float32)
    torch.manual_seed(0)
    model = build_forecaster(spec, 3, windows.train.marks.shape[1])
    batch = windows.train.batch(torch.arange(8))
    found = []
    for by in Products:
        torch.manual_seed(1)  # Informer draws keys
        loss = backpropagate(ForwardPass(model, CPU, Arithmetic(products=by)), batch, 1)
        found.append([loss, *(parameter.grad for parameter in model.parameters())])
        model.zero_grad(set_to_none=True)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


@needs_onednn
def test_only_fp32_matrices_are_multiplied_by_onednn(multiplied: list[torch.Size]) -> None:
    weight = torch.randn(4, 7)
    with LinearLayersByOneDnn():
        for x in (torch.randn(7), torch.randn(0, 7), torch.randn(3, 7, dtype=torch.float64)):
            assert F.linear(x, weight.to(x.dtype)).shape == (*x.shape[:-1], 4)
        assert multiplied == []
        F.linear(torch.randn(3, 7), weight)
    F.linear(torch.randn(3, 7), weight)
    assert multiplied == [(3, 7)]


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
    series: Table, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, multiplied: list[torch.Size]
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
    assert multiplied
    assert not any(isinstance(event, Message) for event in same_events)
    started = other_events[0]
    assert isinstance(started, Started)
    assert not started.reproducible
    assert started.products is Products.TORCH
    said = [event.message for event in other_events if isinstance(event, Message)]
    assert any("resumed with products torch after products onednn" in message for message in said)
