"""The learning rate of every step: a rule on plain numbers, free of torch."""

from __future__ import annotations

import math

from pals_core.spec import LearningRateSchedule, TrainingSpec


def learning_rate_at(step: int, recipe: TrainingSpec, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 1.

    `halving`: ½^(e−2) of the initial one from epoch e = 3 on. The programs of this family (Informer, Autoformer,
    NSTransformer and PALS's own) set lr·½^(e−1) after epoch e, so that the second epoch still trains with the initial
    rate. `cosine`: (1 + cos(π·s/S))/2 of it after s of the S steps that follow the warm-up. During the warm-up of W
    steps, the share step/W of the schedule's.
    """
    warmup = min(1.0, step / recipe.warmup_steps) if recipe.warmup_steps else 1.0
    share = 1.0
    if recipe.schedule is LearningRateSchedule.HALVING:
        epoch = (step - 1) // steps_per_epoch + 1
        share = 0.5 ** max(0, epoch - 2)
    elif recipe.schedule is LearningRateSchedule.COSINE:
        done = max(0, step - 1 - recipe.warmup_steps)
        share = (1 + math.cos(math.pi * done / max(1, recipe.epochs * steps_per_epoch - recipe.warmup_steps))) / 2
    return recipe.learning_rate * share * warmup
