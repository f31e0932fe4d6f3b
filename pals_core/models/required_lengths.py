"""Window lengths at which a forecaster cannot be built.

Needs no torch: every process may ask.
"""

from __future__ import annotations

from pals_core.data.lengths import WindowLengths
from pals_core.errors import Problem
from pals_core.spec import FEDformerSpec, FrozenSpec, PatchTSTSpec


def length_problems(model: FrozenSpec, lengths: WindowLengths) -> tuple[Problem, ...]:
    """Return why this model has nothing to work on at these lengths, with what to do; empty when it has."""
    if isinstance(model, PatchTSTSpec) and lengths.input_len < model.patch_len:
        message = (
            f"patchtst cuts the input into patches of {model.patch_len} steps; input_len is {lengths.input_len}: "
            f"use a patch_len of at most {lengths.input_len}, or a longer input"
        )
        return (Problem(message, pointer="/model/patch_len"),)
    if isinstance(model, FEDformerSpec) and lengths.decoder_len < 2:
        message = (
            f"fedformer's decoder reads label_len + horizon = {lengths.decoder_len} step, which has no frequency to "
            "keep: use a label_len of at least 1"
        )
        return (Problem(message, pointer="/data/label_len"),)
    return ()
