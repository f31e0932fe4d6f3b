"""Layers against plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from pals_core.layers.attention import Destationarisation, MultiHeadAttention
from pals_core.layers.decomposition import decompose
from pals_core.layers.embedding import sinusoidal_position
from pals_core.layers.standardisation import standardise


def attention_by_hand(
    layer: MultiHeadAttention,
    queries: torch.Tensor,
    keys: torch.Tensor,
    tau: torch.Tensor,
    delta: torch.Tensor,
    *,
    causal: bool,
) -> torch.Tensor:
    """One sample, head, and query at a time."""
    projected = [
        projection(source).unflatten(-1, (layer.heads, -1))
        for projection, source in ((layer.query, queries), (layer.key, keys), (layer.value, keys))
    ]
    query, key, value = projected
    mixed = torch.zeros_like(query)
    for sample in range(query.shape[0]):
        for head in range(layer.heads):
            for step in range(query.shape[1]):
                seen = step + 1 if causal else key.shape[1]
                products = torch.stack([query[sample, step, head] @ key[sample, k, head] for k in range(seen)])
                scores = (tau[sample] * products + delta[sample, :seen]) / math.sqrt(query.shape[-1])
                mixed[sample, step, head] = scores.softmax(0) @ value[sample, :seen, head]
    return layer.output(mixed.flatten(2))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("with_delta", [False, True])
def test_attention_is_the_papers_formula(causal: bool, with_delta: bool) -> None:
    torch.manual_seed(0)
    layer = MultiHeadAttention(d_model=12, heads=3, dropout=0.0)
    queries = torch.randn(2, 5, 12)
    keys = queries if causal else torch.randn(2, 7, 12)
    tau = torch.rand(2) + 0.5
    delta = torch.randn(2, keys.shape[1]) if with_delta else torch.zeros(2, keys.shape[1])
    actual = layer(
        queries, keys, causal=causal, destationarisation=Destationarisation(tau, delta if with_delta else None)
    )
    assert_close(actual, attention_by_hand(layer, queries, keys, tau, delta, causal=causal), rtol=0, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_the_last_queries_alone_get_what_they_get_among_all(causal: bool) -> None:
    torch.manual_seed(0)
    layer, x = MultiHeadAttention(d_model=12, heads=3, dropout=0.0), torch.randn(2, 7, 12)
    described = Destationarisation(torch.rand(2) + 0.5, torch.randn(2, 7))
    full = layer(x, x, causal=causal, destationarisation=described)
    for last in (1, 4, 7):
        alone = layer(x, x, causal=causal, last=last, destationarisation=described)
        assert_close(alone, full[:, -last:], rtol=0, atol=1e-6)


def test_plain_attention_is_de_stationary_attention_with_tau_one() -> None:
    torch.manual_seed(0)
    layer, x = MultiHeadAttention(d_model=8, heads=2, dropout=0.0), torch.randn(3, 4, 8)
    assert_close(layer(x, x), layer(x, x, destationarisation=Destationarisation(torch.ones(3), torch.zeros(3, 4))))


def test_trend_and_remainder_add_up_and_edges_repeat() -> None:
    x = torch.tensor([0.0, 3.0, 6.0, 0.0])[None, :, None]
    remainder, trend = decompose(x, 3)
    assert_close(trend[0, :, 0], torch.tensor([1.0, 3.0, 3.0, 2.0]))
    assert_close(remainder + trend, x)


def test_an_even_moving_average_is_refused() -> None:
    with pytest.raises(ValueError, match="no middle"):
        decompose(torch.zeros(1, 5, 1), 4)


def test_positions_are_sines_and_cosines() -> None:
    code = sinusoidal_position(50, 8)
    assert code.shape == (50, 8)
    assert_close(code[7, 4], torch.tensor(math.sin(7 / 10_000 ** (4 / 8))))
    assert_close(code[7, 5], torch.tensor(math.cos(7 / 10_000 ** (4 / 8))))


def test_standardised_windows_have_mean_zero_and_almost_unit_variance() -> None:
    x = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(0)) * 5 + 2
    values, mean, std = standardise(x)
    assert_close(values.mean(1), torch.zeros(2, 3), rtol=0, atol=1e-5)
    assert_close(std.squeeze(1), (x.var(1, correction=0) + 1e-5).sqrt())
    assert_close(values * std + mean, x)
