"""Auto-correlation against its definition, one sample, channel and delay at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from pals_core.layers.autocorrelation import AutoCorrelation


def fitted(x: Tensor, length: int) -> Tensor:
    return F.pad(x, (0, 0, 0, max(0, length - x.shape[1])))[:, :length]


def by_hand(layer: AutoCorrelation, queries: Tensor, keys: Tensor, delays: int) -> Tensor:
    length = queries.shape[1]
    query, key, value = (
        layer.query(queries),
        fitted(layer.key(keys), length),
        fitted(layer.value(keys), length),
    )
    # At delay d: the mean over channels of Σ_t Q(t + d)·K(t).
    correlation = torch.stack([(query.roll(-delay, 1) * key).sum(1).mean(1) for delay in range(length)], dim=1)
    mixed = torch.zeros_like(query)
    for sample in range(len(query)):
        deciding = correlation.mean(0) if layer.training else correlation[sample]
        chosen = deciding.topk(delays).indices
        weights = correlation[sample, chosen].softmax(0)
        for weight, delay in zip(weights, chosen.tolist(), strict=True):
            mixed[sample] += weight * value[sample].roll(-delay, 0)
    return layer.output(mixed)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("query_len", "key_len"), [(12, 12), (12, 7), (9, 15)])
def test_values_are_shifted_by_the_delays_of_largest_correlation(query_len: int, key_len: int, training: bool) -> None:
    torch.manual_seed(0)
    layer = AutoCorrelation(6, factor=2).train(training)
    queries, keys = torch.randn(3, query_len, 6), torch.randn(3, key_len, 6)
    assert_close(layer(queries, keys), by_hand(layer, queries, keys, delays=4), rtol=0, atol=1e-5)


def test_samples_share_their_delays_in_training_alone() -> None:
    torch.manual_seed(0)
    layer, x = AutoCorrelation(6, factor=1), torch.randn(5, 16, 6)
    with torch.no_grad():
        assert not torch.allclose(layer.train()(x, x)[:1], layer(x[:1], x[:1]), atol=1e-4)
        assert_close(layer.eval()(x, x)[:1], layer(x[:1], x[:1]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_sequences_have_at_least_one_delay_and_at_most_their_length(length: int) -> None:
    layer, x = AutoCorrelation(4, factor=100 if length > 1 else 1).eval(), torch.randn(2, length, 4)
    assert_close(layer(x, x), by_hand(layer, x, x, delays=length), rtol=0, atol=1e-5)
