"""The series that the demonstration trains on, and forecasts of it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pals_client import Forecast

SERIES_PATH = Path(__file__).resolve().parent.parent / "examples" / "mauna_loa_co2.csv"
COLUMN = "co2"


@dataclass(frozen=True)
class Series:
    """A series in its own units."""

    times: list[datetime]
    values: list[float]


def measured() -> Series:
    """The measured weeks of the example file."""
    with SERIES_PATH.open(newline="") as file:
        rows = [(row["date"], row[COLUMN]) for row in csv.DictReader(file) if row[COLUMN]]
    return Series([datetime.fromisoformat(day) for day, _ in rows], [float(value) for _, value in rows])


def forecast_series(forecast: Forecast) -> Series:
    """The steps that a forecast has a value for."""
    steps = [
        (datetime.fromisoformat(moment), value)
        for moment, value in zip(forecast["timestamps"], forecast["values"][COLUMN], strict=True)
        if value is not None
    ]
    return Series([moment for moment, _ in steps], [value for _, value in steps])
