"""A mean over seeds, and how far it may be off."""

from __future__ import annotations

import math
import statistics

TOLD_APART = 2  # standard errors


def mean_of(values: list[float]) -> dict[str, float]:
    """Return the mean and its standard error, which is 0 of a single value: nothing is known of it."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "standard_error": error}


def told_apart(differences: list[float]) -> bool:
    """Return whether their mean is further from 0 than two standard errors; a single value tells nothing apart."""
    mean = mean_of(differences)
    return len(differences) > 1 and abs(mean["mean"]) > TOLD_APART * mean["standard_error"]
