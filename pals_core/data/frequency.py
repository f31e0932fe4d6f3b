"""What a sampling frequency means for a forecaster: its calendar family and the features that go with it.

Frequencies are pandas offset aliases (`h`, `15min`, `D`, `B`, `W-SAT`, `MS`, `QE-MAR`, `YS-JAN`, `2h` …). Free of
pandas, so that the API can reason about them.
"""

from __future__ import annotations

import re
from enum import StrEnum

from pals_core.errors import InvalidTable, Problem


class Family(StrEnum):
    """How fast a series is sampled, as far as the calendar features care."""

    YEARLY = "yearly"
    QUARTERLY = "quarterly"
    MONTHLY = "monthly"
    WEEKLY = "weekly"
    DAILY = "daily"
    HOURLY = "hourly"
    MINUTELY = "minutely"
    SECONDLY = "secondly"


class Feature(StrEnum):
    """One calendar feature of a time step."""

    MONTH = "month"
    WEEK_OF_YEAR = "week_of_year"
    DAY_OF_MONTH = "day_of_month"
    DAY_OF_WEEK = "day_of_week"
    DAY_OF_YEAR = "day_of_year"
    HOUR = "hour"
    MINUTE = "minute"
    SECOND = "second"


_DAILY = (Feature.DAY_OF_WEEK, Feature.DAY_OF_MONTH, Feature.DAY_OF_YEAR)

FEATURES: dict[Family, tuple[Feature, ...]] = {
    Family.YEARLY: (),
    Family.QUARTERLY: (Feature.MONTH,),
    Family.MONTHLY: (Feature.MONTH,),
    Family.WEEKLY: (Feature.DAY_OF_MONTH, Feature.WEEK_OF_YEAR),
    Family.DAILY: _DAILY,
    Family.HOURLY: (Feature.HOUR, *_DAILY),
    Family.MINUTELY: (Feature.MINUTE, Feature.HOUR, *_DAILY),
    Family.SECONDLY: (Feature.SECOND, Feature.MINUTE, Feature.HOUR, *_DAILY),
}

_FAMILY_OF_ALIAS: dict[str, Family] = {
    **dict.fromkeys(("YS", "YE", "BYS", "BYE"), Family.YEARLY),
    **dict.fromkeys(("QS", "QE", "BQS", "BQE"), Family.QUARTERLY),
    **dict.fromkeys(("MS", "ME", "BMS", "BME"), Family.MONTHLY),
    "W": Family.WEEKLY,
    **dict.fromkeys(("D", "B"), Family.DAILY),
    "h": Family.HOURLY,
    "min": Family.MINUTELY,
    **dict.fromkeys(("s", "ms"), Family.SECONDLY),
}
_IN_A_DAY = {"D": 1, "h": 24, "min": 1_440, "s": 86_400, "ms": 86_400_000}
_ALIAS = re.compile(r"(?P<multiple>[1-9]\d*)?(?P<base>[A-Za-z]+)(?:-[A-Z]{3})?")


def calendar_family(frequency: str) -> Family:
    """Return the calendar family of a pandas offset alias; multiples (`15min`, `2W-SUN`) belong to their unit.

    Raises InvalidTable for an alias that is not known.
    """
    match = _ALIAS.fullmatch(frequency)
    family = _FAMILY_OF_ALIAS.get(match["base"]) if match else None
    if family is None:
        message = f"the frequency {frequency!r} is not known; known ones are {', '.join(_FAMILY_OF_ALIAS)}"
        raise InvalidTable(message, (Problem(message),))
    return family


def calendar_feature_names(frequency: str) -> tuple[Feature, ...]:
    """Return the calendar features of a frequency, in the order of the model's inputs; none for yearly data."""
    return FEATURES[calendar_family(frequency)]


def is_weekly_or_slower(frequency: str) -> bool:
    """True for weekly, monthly, quarterly and yearly data, which come with shorter default windows, and for `7D`."""
    if (days := days_of(frequency)) is not None:
        return days >= 7
    return calendar_family(frequency) in (Family.YEARLY, Family.QUARTERLY, Family.MONTHLY, Family.WEEKLY)


def is_of_days(frequency: str) -> bool:
    """True when every step is a whole number of days, as weeks, months and years are."""
    if (days := days_of(frequency)) is not None:
        return days.is_integer()
    return calendar_family(frequency) not in (Family.HOURLY, Family.MINUTELY, Family.SECONDLY)


def days_of(frequency: str) -> float | None:
    """Return how many days a step is long: 7 of `7D`, 1 of `24h`; None where they follow the calendar, as weeks do.

    Raises InvalidTable for an alias that is not known.
    """
    calendar_family(frequency)
    match = _ALIAS.fullmatch(frequency)
    in_a_day = _IN_A_DAY.get(match["base"]) if match else None
    return None if match is None or in_a_day is None else int(match["multiple"] or 1) / in_a_day
