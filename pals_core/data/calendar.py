"""Calendar features of time steps, each scaled to [−0.5, 0.5]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from pals_core.data.frequency import Feature, calendar_feature_names


def calendar_features(times: pd.DatetimeIndex, frequency: str) -> npt.NDArray[np.float64]:
    """Return the calendar features of `times`, [n, F], in the order of `calendar_feature_names(frequency)`.

    Raises InvalidTable for an unknown frequency.
    """
    features = np.empty((len(times), len(names := calendar_feature_names(frequency))))
    for position, name in enumerate(names):
        features[:, position] = _feature(times, name) - 0.5
    return features


def _feature(times: pd.DatetimeIndex, name: Feature) -> npt.NDArray[np.float64]:
    match name:
        case Feature.MONTH:
            values, last = times.month - 1, 11
        case Feature.WEEK_OF_YEAR:
            values, last = pd.Index(times.isocalendar().week) - 1, 52
        case Feature.DAY_OF_MONTH:
            values, last = times.day - 1, 30
        case Feature.DAY_OF_WEEK:
            values, last = times.day_of_week, 6
        case Feature.DAY_OF_YEAR:
            values, last = times.day_of_year - 1, 365
        case Feature.HOUR:
            values, last = times.hour, 23
        case Feature.MINUTE:
            values, last = times.minute, 59
        case Feature.SECOND:
            values, last = times.second, 59
    return values.to_numpy(dtype=np.float64) / last
