"""Files and tables to test with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from pals_core.data.table import Table

# How long an example takes says nothing on a shared machine.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write text or bytes into a file of the test's own folder and return its path."""

    def to_file(content: str | bytes, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return to_file


@pytest.fixture
def make_table() -> Callable[..., Table]:
    """Build a table of columns c0, c1 …, always with the same values."""

    def build(steps: int = 200, columns: int = 3, frequency: str = "h") -> Table:
        values = np.random.default_rng(0).normal(size=(steps, columns)) * (1 + np.arange(columns)) + 10
        times = pd.date_range("2021-01-01", periods=steps, freq=frequency).as_unit("us")
        return Table(times, values, tuple(f"c{column}" for column in range(columns)), frequency)

    return build
