"""Informer's distilling halves a sequence."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from pals_core.layers.attention import MultiHeadAttention
from pals_core.layers.distilling import Distilling, DistillingEncoder, distilled_length
from pals_core.layers.stacks import LayerSizes


@pytest.mark.parametrize("length", [2, 3, 4, 5, 24, 95, 96])
def test_a_sequence_is_halved(length: int) -> None:
    output = Distilling(4)(torch.randn(2, length, 4))
    assert output.shape == (2, distilled_length(length), 4)
    assert distilled_length(length) == (length + 1) // 2 + 1


@pytest.mark.parametrize(("layers", "distil", "steps"), [(1, True, 24), (2, True, 13), (3, True, 8), (3, False, 24)])
def test_an_encoder_distils_after_every_layer_but_the_last(layers: int, distil: bool, steps: int) -> None:
    attention = partial(MultiHeadAttention, 4, 2, 0.0)
    encoder = DistillingEncoder([attention] * layers, LayerSizes(4, 8, 2, 0.0), distil=distil)
    assert encoder(torch.randn(2, 24, 4)).shape == (2, steps, 4)
