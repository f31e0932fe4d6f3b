"""Calendar features have the published order and range."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pals_core.data.calendar import calendar_features
from pals_core.data.frequency import FEATURES

# Thursday, 31 December 2020, 23:45:30, ISO week 53.
MOMENT = pd.DatetimeIndex(["2020-12-31 23:45:30"])
MONTH, WEEK, DAY, WEEKDAY, DAY_OF_YEAR = 11 / 11, 52 / 52, 30 / 30, 3 / 6, 365 / 365
HOUR, MINUTE, SECOND = 23 / 23, 45 / 59, 30 / 59
DAILY = [WEEKDAY, DAY, DAY_OF_YEAR]


@pytest.mark.parametrize(
    ("frequency", "expected"),
    [
        ("YS-JAN", []),
        ("QS-JAN", [MONTH]),
        ("ME", [MONTH]),
        ("W-THU", [DAY, WEEK]),
        ("D", DAILY),
        ("B", DAILY),
        ("h", [HOUR, *DAILY]),
        ("15min", [MINUTE, HOUR, *DAILY]),
        ("s", [SECOND, MINUTE, HOUR, *DAILY]),
    ],
)
def test_each_frequency_has_its_features_in_order(frequency: str, expected: list[float]) -> None:
    features = calendar_features(MOMENT, frequency)
    assert features.shape == (1, len(expected))
    np.testing.assert_allclose(features[0], np.array(expected) - 0.5, rtol=0, atol=1e-15)


def test_features_span_the_unit_around_zero() -> None:
    times = pd.date_range("2000-01-01", "2029-01-01", freq="26h30min7s")
    features = calendar_features(times, "s")
    assert features.shape == (len(times), len(FEATURES["secondly"]))
    np.testing.assert_array_equal(features.min(axis=0), -0.5)
    np.testing.assert_array_equal(features.max(axis=0), 0.5)
