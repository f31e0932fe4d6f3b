"""Which class stands behind each model name of the spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from pals_core.data.lengths import WindowLengths, window_lengths
from pals_core.errors import InvalidSpec
from pals_core.models.autoformer import Autoformer
from pals_core.models.dlinear import DLinear
from pals_core.models.fedformer import FEDformer
from pals_core.models.informer import Informer
from pals_core.models.itransformer import ITransformer
from pals_core.models.nlinear import NLinear
from pals_core.models.nstransformer import NSTransformer
from pals_core.models.patchtst import PatchTST
from pals_core.models.required_lengths import length_problems
from pals_core.models.transformer import Transformer
from pals_core.spec import Spec

# Each takes its own model spec, the window's lengths, the number of columns and of calendar features, and the seed of
# what it draws once and keeps.
FORECASTERS: Mapping[str, Callable[[Any, WindowLengths, int, int, int], nn.Module]] = {
    "transformer": Transformer,
    "nstransformer": NSTransformer,
    "informer": Informer,
    "autoformer": Autoformer,
    "fedformer": FEDformer,
    "patchtst": PatchTST,
    "itransformer": ITransformer,
    "dlinear": DLinear,
    "nlinear": NLinear,
}


def build_forecaster(spec: Spec, columns: int, calendar_features: int) -> nn.Module:
    """Build the spec's forecaster with fresh weights from the global random state; the spec is resolved.

    Its `forward(x_enc, x_mark_enc, x_dec, x_mark_dec)` takes [B, L, C], [B, L, F], [B, label_len + H, C] and
    [B, label_len + H, F] and returns [B, H, C], all in scaled units. Random choices that belong to the model, such as
    the frequencies it keeps, follow the spec's training seed alone and are buffers of its state: evaluation draws no
    random numbers. Raises InvalidSpec for an unresolved spec, or for lengths the model cannot work on.
    """
    lengths = window_lengths(spec.data)
    if problems := length_problems(spec.model, lengths):
        raise InvalidSpec(problems[0].message, problems)
    return FORECASTERS[spec.model.name](spec.model, lengths, columns, calendar_features, spec.training.seed)
