"""A mean over seeds, and how far it may be off."""

from __future__ import annotations

import math
import statistics


def mean_of(values: list[float]) -> dict[str, float]:
    """Return the mean and its standard error, which is 0 of a single value: nothing is known of it."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "standard_error": error}
