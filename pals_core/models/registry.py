"""Which class stands behind each model name of the spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from pals_core.data.lengths import WindowLengths, window_lengths
from pals_core.models.dlinear import DLinear
from pals_core.models.nstransformer import NSTransformer
from pals_core.models.transformer import Transformer
from pals_core.spec import Spec

# Each takes its own model spec, the window's lengths, the number of columns and of calendar features.
FORECASTERS: Mapping[str, Callable[[Any, WindowLengths, int, int], nn.Module]] = {
    "transformer": Transformer,
    "nstransformer": NSTransformer,
    "dlinear": DLinear,
}


def build_forecaster(spec: Spec, columns: int, calendar_features: int) -> nn.Module:
    """Build the spec's forecaster with fresh weights from the global random state; the spec is resolved.

    Its `forward(x_enc, x_mark_enc, x_dec, x_mark_dec)` takes [B, L, C], [B, L, F], [B, label_len + H, C] and
    [B, label_len + H, F] and returns [B, H, C], all in scaled units. Raises InvalidSpec for an unresolved spec.
    """
    return FORECASTERS[spec.model.name](spec.model, window_lengths(spec.data), columns, calendar_features)
