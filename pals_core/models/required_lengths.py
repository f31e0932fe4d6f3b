"""Window lengths at which a forecaster cannot be built, and settings that leave most of one idle.

Needs no torch: every process may ask.
"""

from __future__ import annotations

from pals_core.data.lengths import WindowLengths
from pals_core.errors import Problem
from pals_core.spec import AutoformerSpec, DLinearSpec, FEDformerSpec, FrozenSpec, PatchTSTSpec


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


def idle_problems(model: FrozenSpec, lengths: WindowLengths) -> tuple[Problem, ...]:
    """Return what leaves most of this model's weights without a say, with what to do; empty when nothing does.

    Such a forecaster can be built, and read from a file; training it makes no sense.
    """
    if isinstance(model, AutoformerSpec | FEDformerSpec | DLinearSpec) and model.moving_avg == 1:
        message = "a moving average of one step is the series itself, and leaves nothing beside the trend to learn from"
        return (Problem(f"{message}: use a moving_avg of at least 3", pointer="/model/moving_avg"),)
    if isinstance(model, FEDformerSpec):
        message = "fedformer keeps a single frequency, and the lowest is the mean, which decomposition takes away"
        if model.modes == 1:
            return (Problem(f"{message}: use modes of at least 2", pointer="/model/modes"),)
        if lengths.input_len < 4:
            return (Problem(f"{message}: use an input_len of at least 4", pointer="/data/input_len"),)
    return ()
