"""Fourier blocks against plain sums of waves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pals_core.layers.frequency import FourierBlock, FourierCrossBlock, FourierLayout, FrequencyChoice

RANDOM = FrequencyChoice(3, torch.Generator().manual_seed(5))


def coefficient(x: Tensor, frequency: int) -> Tensor:
    """Σ_t x(t)·exp(−2πi·f·t/T) of [T, d_k]."""
    waves = torch.exp(-2j * math.pi * frequency * torch.arange(len(x)) / len(x))
    return (waves[:, None] * x).sum(0)


def wave(amplitudes: Tensor, frequency: int, steps: int) -> Tensor:
    """The real wave, [T, d_k], of one frequency; the constant one counts once, the others with their conjugates."""
    waves = torch.exp(2j * math.pi * frequency * torch.arange(steps) / steps)
    return (waves[:, None] * amplitudes).real * (1 if frequency == 0 else 2) / steps


def scaled(block: FourierBlock | FourierCrossBlock) -> None:
    """Fresh weights are tiny; make their effect show."""
    with torch.no_grad():
        block.weight.mul_(block.layout.d_model**2)


@pytest.mark.parametrize("choice", [FrequencyChoice(4, None), RANDOM], ids=["lowest", "random"])
@pytest.mark.parametrize("steps", [12, 13])
def test_each_kept_frequency_is_multiplied_in_its_place_and_the_others_go(choice: FrequencyChoice, steps: int) -> None:
    torch.manual_seed(0)
    block, x = FourierBlock(FourierLayout(6, 2), steps, choice), torch.randn(2, steps, 6)
    scaled(block)
    expected = torch.zeros_like(x)
    for sample in range(2):
        for head in range(2):
            columns = slice(3 * head, 3 * head + 3)
            for place, frequency in enumerate(block.frequencies.tolist()):
                mixed = coefficient(x[sample, :, columns], frequency) @ block.weight[head, :, :, place]
                expected[sample, :, columns] += wave(mixed, frequency, steps)
    assert_close(block(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("choice", [FrequencyChoice(4, None), RANDOM], ids=["lowest", "random"])
def test_frequencies_of_queries_attend_to_those_of_keys(choice: FrequencyChoice) -> None:
    torch.manual_seed(0)
    block = FourierCrossBlock(FourierLayout(6, 2), 13, 10, choice)
    scaled(block)
    queries, keys = torch.randn(2, 13, 6) / 5, torch.randn(2, 10, 6) / 5
    expected = torch.zeros_like(queries)
    for sample in range(2):
        for head in range(2):
            columns = slice(3 * head, 3 * head + 3)
            key = [coefficient(keys[sample, :, columns], frequency) for frequency in block.key_frequencies.tolist()]
            for place, frequency in enumerate(block.query_frequencies.tolist()):
                query = coefficient(queries[sample, :, columns], frequency)
                attended = sum((query @ one).tanh() * one for one in key)
                mixed = attended @ block.weight[head, :, :, place] / 6**2
                expected[sample, :, columns] += wave(mixed, frequency, 13)
    assert_close(block(queries, keys), expected, rtol=0, atol=1e-5)


def test_the_published_axis_order_reads_channels_as_steps() -> None:
    x = torch.arange(24.0).view(1, 4, 6)
    ours, published = FourierLayout(6, 2), FourierLayout(6, 2, published_axis_order=True)
    assert torch.equal(ours.merge(ours.split(x)), x)
    assert torch.equal(published.merge(ours.split(x)), x.transpose(1, 2).reshape(1, 4, 6))


def test_weights_start_between_zero_and_one_over_the_squared_width() -> None:
    torch.manual_seed(0)
    weight = torch.view_as_real(FourierBlock(FourierLayout(10, 1), 40, FrequencyChoice(20, None)).weight.detach())
    assert 0 <= float(weight.min()) < 1e-4
    assert 0.0099 < float(weight.max()) < 0.01


@pytest.mark.parametrize(("modes", "steps", "kept"), [(64, 96, 48), (64, 7, 3), (2, 96, 2), (1, 2, 1)])
def test_random_frequencies_are_sorted_distinct_and_never_the_highest(modes: int, steps: int, kept: int) -> None:
    for seed in range(5):
        frequencies = FrequencyChoice(modes, torch.Generator().manual_seed(seed)).of(steps).tolist()
        assert frequencies == sorted(set(frequencies))
        assert len(frequencies) == kept
        assert set(frequencies) <= set(range(steps // 2))


def test_lowest_frequencies_start_with_the_constant() -> None:
    assert FrequencyChoice(3, None).of(96).tolist() == [0, 1, 2]
