"""Telling a file's format by its content."""

from __future__ import annotations

from pathlib import Path

from pals_core.data.csv_file import read_csv_file
from pals_core.data.parquet_file import read_parquet_file
from pals_core.data.raw import RawTable


def raw_from_file(path: Path) -> RawTable:
    """Read a CSV, gzip'd CSV or Parquet file, whatever its name; raises InvalidTable when it is none of them."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PAR1":
        return read_parquet_file(path)
    return read_csv_file(path, "gzip" if start[:2] == b"\x1f\x8b" else None)
