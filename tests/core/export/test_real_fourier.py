"""Real matrices do what complex Fourier transforms do."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pals_core.data.lengths import WindowLengths
from pals_core.export.real_fourier import InverseTransform, Transform, complex_tanh, make_real, matrix_bytes
from pals_core.models.registry import build_forecaster
from pals_core.spec import Spec

LENGTHS = [(10, 5, 4), (13, 4, 9), (9, 0, 6), (7, 7, 1), (2, 1, 5)]
MODELS: list[dict[str, Any]] = [
    {"name": "autoformer"},
    {"name": "fedformer", "modes": 3},
    {"name": "fedformer", "mode_select": "lowest"},
    {"name": "fedformer", "published_axis_order": True, "heads": 4},
]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: " ".join(map(str, model.values())))
def test_a_model_with_real_transforms_forecasts_the_same(lengths: tuple[int, int, int], model: dict[str, Any]) -> None:
    input_len, label_len, horizon = lengths
    data = {"input_len": input_len, "label_len": label_len, "horizon": horizon}
    sizes = {"d_model": 8, "d_ff": 12, "heads": 2, "decoder_layers": 2, "moving_avg": 3}
    torch.manual_seed(0)
    forecaster = build_forecaster(Spec.model_validate({"data": data, "model": sizes | model}), 3, 2).eval()
    with torch.no_grad():
        for parameter in forecaster.parameters():
            if parameter.is_complex():
                parameter.mul_(8**2)  # so that what the blocks do shows
    steps = label_len + horizon
    inputs = [torch.randn(4, length, width) for length in (input_len, steps) for width in (3, 2)]
    real = copy.deepcopy(forecaster)
    make_real(real, WindowLengths(*lengths))
    with torch.no_grad():
        expected, found = forecaster(*inputs), real(*inputs)
    assert float((expected - found).abs().max()) < 5e-5


@pytest.mark.parametrize(("steps", "length"), [(8, 8), (9, 9), (1, 1), (2, 2), (5, 8), (5, 9)])
def test_transforms_are_those_of_numpy(steps: int, length: int) -> None:
    x = np.random.default_rng(0).normal(size=(3, steps))
    frequencies = np.arange(length // 2 + 1)
    real, imaginary = Transform(frequencies, steps, length)(torch.tensor(x, dtype=torch.float32))
    expected = np.fft.rfft(x, n=length)
    assert np.allclose(real.numpy() + 1j * imaginary.numpy(), expected, atol=1e-5)
    back = InverseTransform(frequencies, length)(real, imaginary)
    assert np.allclose(back.numpy(), np.pad(x, ((0, 0), (0, length - steps))), atol=1e-5)


def test_the_tangent_of_complex_numbers_does_not_overflow() -> None:
    generator = torch.Generator().manual_seed(0)
    real, imaginary = 5 * torch.randn(1000, generator=generator), 20 * torch.randn(1000, generator=generator)
    real[:4] = torch.tensor([1e4, -1e4, 100.0, 0.0])
    found = torch.complex(*complex_tanh(real, imaginary))
    expected = torch.complex(real.double(), imaginary.double()).tanh()
    assert bool(found.isfinite().all())
    assert float((found - expected).abs().max()) < 1e-4


def test_matrices_that_would_not_fit_are_known_before_they_are_made() -> None:
    def build(input_len: int) -> tuple[nn.Module, WindowLengths]:
        data = {"input_len": input_len, "label_len": 5, "horizon": 20}
        model = {"name": "autoformer", "d_model": 4, "d_ff": 4, "heads": 1}
        forecaster = build_forecaster(Spec.model_validate({"data": data, "model": model}), 1, 0)
        return forecaster, WindowLengths(input_len, 5, 20)

    forecaster, lengths = build(100)
    expected = matrix_bytes(forecaster, lengths)
    before = sum(tensor.nbytes for tensor in (*forecaster.parameters(), *forecaster.buffers()))
    make_real(forecaster, lengths)
    made = sum(tensor.nbytes for tensor in (*forecaster.parameters(), *forecaster.buffers())) - before
    assert 0.9 * made < expected < 1.1 * made
    assert matrix_bytes(*build(100_000)) > 2**36
