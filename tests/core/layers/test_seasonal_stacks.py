"""Autoformer's stacks part trend and season."""

from __future__ import annotations

from functools import partial

import torch
from torch.testing import assert_close

from pals_core.layers.autocorrelation import AutoCorrelation
from pals_core.layers.seasonal_stacks import SeasonalDecoder, SeasonalNorm
from pals_core.layers.stacks import LayerSizes


def test_a_seasonal_norm_has_no_mean_over_time() -> None:
    output = SeasonalNorm(6)(torch.randn(2, 9, 6))
    assert_close(output.mean(1), torch.zeros(2, 6), rtol=0, atol=1e-6)


def test_every_decoder_layer_adds_to_the_trend() -> None:
    torch.manual_seed(0)
    attention = partial(AutoCorrelation, 6, 1)
    decoder = SeasonalDecoder(2, LayerSizes(6, 8, 1, 0.0), 5, 3, attention, attention)
    x, encoded, trend = torch.randn(2, 9, 6), torch.randn(2, 12, 6), torch.randn(2, 9, 3)
    with torch.no_grad():
        _, both = decoder(x, encoded, trend)
        season, first = decoder.layers[0](x, encoded)
        _, second = decoder.layers[1](season, encoded)
    assert_close(both, trend + first + second)
