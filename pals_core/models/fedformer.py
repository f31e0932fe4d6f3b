"""FEDformer: decomposition inside the layers, Fourier blocks for attention."""

from __future__ import annotations

from functools import partial

import torch

from pals_core.data.lengths import WindowLengths
from pals_core.layers.frequency import (
    FourierBlock,
    FourierCrossAttention,
    FourierCrossBlock,
    FourierLayout,
    FourierSelfAttention,
    FrequencyChoice,
)
from pals_core.models.seasonal_transformer import SeasonalTransformer
from pals_core.spec import FEDformerSpec, ModeSelect


class FEDformer(SeasonalTransformer):
    """Seasonal encoder–decoder whose attentions are Fourier blocks (arXiv 2201.12740).

    All encoder layers share one block, so do all decoder self-attentions and all cross-attentions. Random frequencies
    are drawn from `seed` and part of the state.
    """

    def __init__(
        self, spec: FEDformerSpec, lengths: WindowLengths, columns: int, calendar_features: int, seed: int
    ) -> None:
        generator = torch.Generator(device="cpu").manual_seed(seed)
        choice = FrequencyChoice(spec.modes, generator if spec.mode_select is ModeSelect.RANDOM else None)
        layout = FourierLayout(spec.d_model, spec.heads, spec.published_axis_order)
        of_encoder = FourierBlock(layout, lengths.input_len, choice)
        of_decoder = FourierBlock(layout, lengths.decoder_len, choice)
        across = FourierCrossBlock(layout, lengths.decoder_len, lengths.input_len, choice)
        super().__init__(
            spec,
            lengths,
            columns,
            calendar_features,
            encoder_attention=partial(FourierSelfAttention, spec.d_model, of_encoder),
            decoder_attention=partial(FourierSelfAttention, spec.d_model, of_decoder),
            cross_attention=partial(FourierCrossAttention, spec.d_model, across),
        )
