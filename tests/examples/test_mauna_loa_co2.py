from __future__ import annotations

import csv
import math
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import pandas as pd

CO2_FILE = Path(__file__).parents[2] / "examples" / "mauna_loa_co2.csv"


def test_the_example_is_a_weekly_table_with_the_gaps_of_its_source() -> None:
    table = pd.read_csv(CO2_FILE, parse_dates=["date"])

    assert list(table.columns) == ["date", "co2"]
    assert len(table) == 2284
    assert table["date"].iloc[0] == pd.Timestamp(1958, 3, 29)
    assert table["date"].iloc[-1] == pd.Timestamp(2001, 12, 29)
    assert table["co2"].isna().sum() == 59
    assert math.isclose(table["co2"].min(), 313.0)
    assert math.isclose(table["co2"].max(), 373.9)


def test_every_week_of_the_record_has_exactly_one_row() -> None:
    with CO2_FILE.open(newline="") as file:
        days = [date.fromisoformat(row["date"]) for row in csv.DictReader(file)]

    assert {later - earlier for earlier, later in pairwise(days)} == {timedelta(days=7)}
