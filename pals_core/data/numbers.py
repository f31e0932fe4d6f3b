"""Reading the cells of a column as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from pals_core.data.csv_file import MISSING_MARKS

# Numbers with units, separators or decimal commas: meant as numbers, though they cannot be read as such.
_NUMBER_LIKE = r"[+-]?[€$£]?\s*\d[\d.,'\s]*\s*[%€$£]?"
_DECIMAL_COMMA = r"[+-]?\d*,?\d+(?:[eE][+-]?\d+)?"
_THREE_DIGITS = r"[+-]?\d{1,3},\d{3}"


@dataclass(frozen=True)
class Numbers:
    """A column as numbers; NaN where the cell is empty or cannot be read."""

    values: npt.NDArray[np.float64]
    unreadable: npt.NDArray[np.intp]  # positions of the cells that are neither empty nor numbers
    decimal_comma: bool = False


def read_numbers(cells: pd.Series, *, decimal_comma: bool) -> Numbers | None:
    """Return the cells as numbers, or None for a column that does not hold numbers at all.

    A column of text counts as numeric when at least half of its filled cells are numbers, or look as if they were
    meant to be. With `decimal_comma`, `1,5` is a number where the column leaves no doubt: every cell reads that way,
    and not every comma is followed by exactly three digits.
    """
    if pd.api.types.is_bool_dtype(cells.dtype) or pd.api.types.is_complex_dtype(cells.dtype):
        return None
    if pd.api.types.is_numeric_dtype(cells.dtype):
        return Numbers(cells.to_numpy(dtype=np.float64, na_value=np.nan), np.empty(0, dtype=np.intp))
    if pd.api.types.is_datetime64_any_dtype(cells.dtype) or isinstance(cells.dtype, pd.PeriodDtype):
        return None
    # Some programs write a minus of its own sign.
    text = cells.astype("str").str.strip().str.replace("\u2212", "-", regex=False)
    filled = (text.notna() & ~text.isin(MISSING_MARKS)).to_numpy(dtype=bool)
    if not filled.any():
        return Numbers(np.full(len(text), np.nan), np.empty(0, dtype=np.intp))
    values = _to_floats(text)
    doubtful = text[filled & np.isnan(values)]
    if decimal_comma and doubtful.str.fullmatch(_DECIMAL_COMMA).all() and _leaves_no_doubt(text[filled]):
        return Numbers(_to_floats(text.str.replace(",", ".", regex=False)), np.empty(0, dtype=np.intp), True)
    number_like = int(doubtful.str.fullmatch(_NUMBER_LIKE).sum())
    if 2 * (int(filled.sum()) - len(doubtful) + number_like) < int(filled.sum()):
        return None
    return Numbers(values, np.flatnonzero(filled & np.isnan(values)))


def _to_floats(text: pd.Series) -> npt.NDArray[np.float64]:
    return pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _leaves_no_doubt(text: pd.Series) -> bool:
    with_comma = text[text.str.contains(",", regex=False)]
    return (
        len(with_comma) > 0
        and not bool(text.str.contains(".", regex=False).any())
        and not bool(with_comma.str.fullmatch(_THREE_DIGITS).all())
    )
