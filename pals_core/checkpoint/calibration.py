"""How far off forecasts were on the validation part: what prediction intervals are made of; free of numpy and torch.

Shapes: Q levels, H horizon, E columns that have quantiles of their own: all of them, or one that stands for all.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from pals_core.checkpoint.header_part import HeaderPart

_BYTES = 2


class Calibration(HeaderPart):
    """Quantiles of absolute validation residuals, [Q, H, E] in scaled units, with the finite-sample correction.

    The quantile of level p % is the ⌈(n + 1)·p/100⌉-th smallest of n residuals (split-conformal prediction,
    arXiv 1604.04173, section 2.2).
    """

    residuals: int = Field(ge=1, description="n, of the quantile made of the fewest.")
    levels: tuple[Annotated[float, Field(gt=0, lt=100)], ...] = Field(
        min_length=1, max_length=64, description="In per cent, rising; the last is the highest that n residuals allow."
    )
    columns: int = Field(ge=1, description="E: as many as the header has, or 1 where all columns share a quantile.")
    unit: float = Field(gt=0, description="What the numbers in `quantiles` are multiples of.")
    quantiles: str = Field(
        description="Base64 of [Q, H, E] half-precision numbers (IEEE 754 binary16, little-endian), rounded up."
    )

    @property
    def highest_level(self) -> float:
        return self.levels[-1]

    def numbers(self) -> tuple[float, ...]:
        """Return the quantiles one after another, Q·H·E of them."""
        raw = self.raw()
        return tuple(self.unit * number for number in struct.unpack(f"<{len(raw) // _BYTES}e", raw))

    def raw(self) -> bytes:
        """Return the bytes of `quantiles`; raises ValueError when they are no such numbers."""
        try:
            raw = base64.b64decode(self.quantiles, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("the calibration's quantiles are not base64") from error
        if len(raw) % _BYTES:
            raise ValueError("the calibration's quantiles end within a number")
        return raw

    @model_validator(mode="after")
    def _levels_rise(self) -> Calibration:
        if any(low >= high for low, high in pairwise(self.levels)):
            raise ValueError("the calibration's levels do not rise")
        if self.highest_level > 100 * self.residuals / (self.residuals + 1):
            raise ValueError(f"{self.residuals} residuals have no quantile of level {self.highest_level:g}")
        return self

    def check(self, horizon: int, columns: int) -> None:
        """Raise ValueError unless there are finite quantiles that rise with the level for each step and column."""
        if self.columns not in (1, columns):
            raise ValueError(f"the calibration has {self.columns} columns; the checkpoint has {columns}")
        each = horizon * self.columns
        if len(self.raw()) != _BYTES * each * len(self.levels):
            raise ValueError(f"the calibration is not {len(self.levels)} quantiles for each of {each} cells")
        numbers = self.numbers()
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise ValueError("a quantile of the calibration is not a number from 0 on")
        if any(low > high for low, high in zip(numbers, numbers[each:], strict=False)):
            raise ValueError("a quantile of the calibration falls with the level")
