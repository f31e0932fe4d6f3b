"""Raw tables of what a caller gives: a frame, or a file, whose format its content tells."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pals_core.data.csv_file import read_csv_file
from pals_core.data.parquet_file import read_parquet_file
from pals_core.data.raw import RawTable, raw_from_frame, unreadable_table


def raw_from_file(path: str | Path) -> RawTable:
    """Read a CSV, gzip'd CSV or Parquet file, whatever its name; raises InvalidTable when it is none of them."""
    path = Path(path)
    if path.is_dir():
        raise unreadable_table(f"{path} is a folder; give a file in it")
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PAR1":
        return read_parquet_file(path)
    return read_csv_file(path, "gzip" if start[:2] == b"\x1f\x8b" else None)


def raw_of(given: pd.DataFrame | str | Path) -> RawTable:
    """Take a frame, or read a file; raises InvalidTable for anything else, too."""
    if isinstance(given, pd.DataFrame):
        return raw_from_frame(given)
    if not isinstance(given, str | Path):
        kind = type(given).__name__
        of_series = "; a Series becomes one by to_frame()" if isinstance(given, pd.Series) else ""
        raise unreadable_table(f"a table is a DataFrame or the path of a CSV or Parquet file, not a {kind}{of_series}")
    return raw_from_file(given)
