"""Reading a CSV file, plain or gzip'd, into a raw table."""

from __future__ import annotations

import csv
import gzip
import io
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np
import pandas as pd

from pals_core.data.raw import LONG_TIME, SERIES_ID, TIME_NAMES, RawTable, column_names, unreadable_table
from pals_core.errors import InvalidTable

# What an empty cell may be written as, next to nothing at all.
MISSING_MARKS = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NAN", "-nan", "NULL", "Null", "null", "None")

_LONGEST_HEADER = 1 << 20
_LOOKS_LIKE_TIME = re.compile(r"\s*(\d{4}[-/.]\d{1,2}([-/.]\d{1,2})?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([T\s].*)?")
_SIGNATURES = {
    b"PK\x03\x04": "an Excel or zip file",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"%PDF": "a PDF",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"PAR1": "a gzip'd Parquet file, which is compressed already",
    b"\x1f\x8b": "gzip'd twice",
}


@dataclass(frozen=True)
class _Header:
    names: tuple[str, ...]
    nameless: tuple[str, ...]
    separator: str
    records: int  # up to and including the header, blank ones too
    lines: int  # of the file up to its end; a quoted name may have several


def read_csv_file(path: Path, compression: Literal["gzip"] | None) -> RawTable:
    """Read a UTF-8 file with a header, cells separated by commas, semicolons or tabs.

    Raises InvalidTable, with the row where there is one, for anything else.
    """
    with _damaged_gzip_is_invalid():
        header = _read_header(path, compression)
        frame = _read_rows(path, compression, header)
    if SERIES_ID in frame:
        frame[SERIES_ID] = frame[SERIES_ID].astype("category")
    blank = frame.isna().all(axis=1).to_numpy()
    rows = np.arange(header.lines + 1, header.lines + 1 + len(frame))
    if blank.any():
        frame, rows = frame[~blank].reset_index(drop=True), rows[~blank]
    if frame.empty:
        raise unreadable_table("the file has a header and no rows")
    return RawTable(frame, rows, nameless=header.nameless, decimal_comma=header.separator == ";")


@contextmanager
def _damaged_gzip_is_invalid() -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise unreadable_table(f"the gzip'd file is damaged or cut off: {error}") from error


def _open(path: Path, compression: str | None) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if compression else path.open("rb")


def _read_header(path: Path, compression: str | None) -> _Header:
    with _open(path, compression) as file:
        start = file.read(_LONGEST_HEADER)
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature):
            raise unreadable_table(f"the file is {kind}; send CSV (UTF-8) or Parquet")
    if b"\0" in start:
        raise unreadable_table("the file is binary; send CSV (UTF-8) or Parquet")
    text = start.decode("utf-8-sig", errors="replace")
    first_line = next((line for line in io.StringIO(text, newline="") if line.strip(",;\t \r\n")), "")
    separator = max(",;\t", key=re.sub(r'"[^"]*"', "", first_line).count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        records, cells = next(
            ((count, cells) for count, cells in enumerate(reader, start=1) if any(cell.strip() for cell in cells)),
            (0, None),
        )
    except csv.Error as error:
        raise unreadable_table(f"the header cannot be read: {error}", row=1) from error
    if cells is None:
        raise unreadable_table("the file is empty")
    if "�" in "".join(cells):
        raise _not_utf8(path, compression)
    for cell in cells:
        if _LOOKS_LIKE_TIME.fullmatch(cell):
            raise unreadable_table(
                f"the first row must name the columns; {cell!r} is a time, not a name", row=reader.line_num
            )
    names, nameless = column_names(cells)
    return _Header(names, nameless, separator, records, reader.line_num)


def _read_rows(path: Path, compression: Literal["gzip"] | None, header: _Header) -> pd.DataFrame:
    keeps_text = {*TIME_NAMES, SERIES_ID, LONG_TIME}
    marks = {name: [""] if name.lower() in keeps_text else list(MISSING_MARKS) for name in header.names}
    try:
        with warnings.catch_warnings():
            # A column that mixes numbers and text is told apart, cell by cell, later.
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)
            # Too many cells in the first row would be dropped.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                path,
                sep=header.separator,
                compression=compression,
                header=None,
                names=list(header.names),
                skiprows=header.records,
                index_col=False,
                skip_blank_lines=False,
                keep_default_na=False,
                na_values=marks,
                encoding="utf-8-sig",
                # Categories would be read as numbers where all can be: 001 as 1.
                dtype={SERIES_ID: "str"} if SERIES_ID in header.names else None,
            )
    except UnicodeDecodeError as error:
        raise _not_utf8(path, compression) from error
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise _ragged(path, compression, header, str(error)) from error
    except pd.errors.EmptyDataError as error:
        raise unreadable_table("the file has a header and no rows") from error


def _not_utf8(path: Path, compression: str | None) -> InvalidTable:
    with _open(path, compression) as file:
        for row, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return unreadable_table(f"row {row} is not UTF-8 text; save the file as UTF-8", row=row)
    return unreadable_table("the file is not UTF-8 text; save it as UTF-8")


def _ragged(path: Path, compression: str | None, header: _Header, cause: str) -> InvalidTable:
    """Name the row that stopped the reader; reading again is slow, and happens only then."""
    width, padded = len(header.names), None
    with _open(path, compression) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter=header.separator)
        try:
            for cells in reader:
                if len(cells) > width and padded is None:
                    padded = reader.line_num
                if len(cells) > width and any(cells[width:]):
                    return unreadable_table(
                        f"row {reader.line_num} has {len(cells)} cells, the header {width}; quote cells that contain "
                        f"{header.separator!r}",
                        row=reader.line_num,
                    )
        except csv.Error as error:
            return unreadable_table(f"row {reader.line_num} cannot be read: {error}", row=reader.line_num)
    if padded is not None:
        return unreadable_table(
            f"row {padded} ends with an empty cell more than the header has; leave out the {header.separator!r} at the "
            "end of the rows, or add one to the header",
            row=padded,
        )
    return unreadable_table(f"the file is not well-formed CSV: {cause}")
