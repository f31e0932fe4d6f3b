"""Autoformer: decomposition inside the layers, auto-correlation for attention."""

from __future__ import annotations

from functools import partial

from pals_core.data.lengths import WindowLengths
from pals_core.layers.autocorrelation import AutoCorrelation
from pals_core.models.seasonal_transformer import SeasonalTransformer
from pals_core.spec import AutoformerSpec


class Autoformer(SeasonalTransformer):
    """Seasonal encoder–decoder whose attentions are all auto-correlation (arXiv 2106.13008)."""

    def __init__(
        self,
        spec: AutoformerSpec,
        lengths: WindowLengths,
        columns: int,
        calendar_features: int,
        seed: int,  # noqa: ARG002
    ) -> None:
        attention = partial(AutoCorrelation, spec.d_model, spec.factor)
        super().__init__(
            spec,
            lengths,
            columns,
            calendar_features,
            encoder_attention=attention,
            decoder_attention=attention,
            cross_attention=attention,
        )
