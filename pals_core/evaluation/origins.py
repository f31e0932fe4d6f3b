"""What an evaluation is of."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from pals_core.data.scaling import Scaler
from pals_core.data.split import Part
from pals_core.data.windows import SplitWindows, WindowSet


@dataclass(frozen=True)
class Origins:
    """Windows to forecast, and what they were cut from."""

    windows: WindowSet
    times: pd.DatetimeIndex  # [N], of the rows
    groups: tuple[Part, ...]  # the rows of each group of columns that go through the network together
    scaler: Scaler  # of each column
    columns: tuple[str, ...]
    frequency: str
    stride: int = 1


def origins_of_test(windows: SplitWindows) -> Origins:
    """Return every window of the test part."""
    groups = tuple(Part(parts.train.start, parts.test.stop) for parts in windows.parts)
    return Origins(windows.test, windows.times, groups, windows.scaler, windows.columns, windows.frequency)
