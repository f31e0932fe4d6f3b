"""Scaling to zero mean and unit variance, learnt from the training part alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pals_core.errors import InvalidTable, Problem

# Of a value: some steps from one double to the next, as sums and conversions of one number bring about.
_ROUNDING = 4 * float(np.finfo(np.float64).eps)
# Between these, and with scaled values in single precision, squares in the data's units are numbers.
_SMALLEST_DEVIATION, _LARGEST_DEVIATION = 1e-100, 1e100


@dataclass(frozen=True)
class Scaler:
    """Mean and population standard deviation of each column, [C] each; a constant column has standard deviation 1."""

    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, values: npt.NDArray[np.float64]) -> Scaler:
        """Learn the scaling from the training rows, [n, C], missing ones (NaN) left out; each column has a known one.

        Raises InvalidTable when values differ by so much, or so little, that squares of it are no numbers.
        """
        known = ~np.isnan(values)
        if not known.all():
            return joined([cls.fit(column[here, None]) for column, here in zip(values.T, known.T, strict=True)])
        # The range decides, not the computed deviation: that of a constant 0.1 is 1e-17, not 0.
        with np.errstate(over="ignore", invalid="ignore"):
            constant = is_constant(values.min(axis=0), values.max(axis=0))
            mean = np.where(constant, values[0], values.mean(axis=0))
            std = np.where(constant, 1.0, values.std(axis=0))
        if not (np.isfinite(mean).all() and (std <= _LARGEST_DEVIATION).all()):
            raise _out_of_range("far apart or too large", "divide")
        if (std < _SMALLEST_DEVIATION).any():
            raise _out_of_range("close together", "multiply")
        return cls(mean, std)

    def scale(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return `values`, [..., C] in the data's units, in scaled units."""
        return (values - self.mean) / self.std

    def unscale(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return `values`, [..., C] in scaled units, in the data's units."""
        return values * self.std + self.mean


def _out_of_range(what: str, remedy: str) -> InvalidTable:
    message = (
        f"the values are too {what} for squares of their differences to be computed; {remedy} them by a power of ten"
    )
    return InvalidTable(message, (Problem(message),))


def is_constant(lowest: npt.ArrayLike, highest: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return whether values from `lowest` to `highest` differ by no more than rounding makes equal ones differ."""
    low, high = np.asarray(lowest), np.asarray(highest)
    with np.errstate(over="ignore", invalid="ignore"):
        spread = high - low
        within: npt.NDArray[np.bool_] = spread <= _ROUNDING * np.maximum(np.abs(low), np.abs(high))
    # Nothing is left of a range of infinity but whether its ends are one.
    return np.where(np.isfinite(spread), within, low == high)


def joined(scalers: Sequence[Scaler]) -> Scaler:
    """Return the scalers of several groups of columns as one of all."""
    return Scaler(
        np.concatenate([scaler.mean for scaler in scalers]), np.concatenate([scaler.std for scaler in scalers])
    )
