"""Errors by horizon step and column, added up window by window and turned into means.

Shapes: B batch, H horizon, C columns of a window, E columns, or pooled series, whose errors are told apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pals_core.data.scaling import Scaler
from pals_core.data.windows import WindowSet
from pals_core.evaluation.document import ForecastErrors, Series

# More numbers of a kind than this would make the document hard to read for people and programs.
MAX_CELLS = 10_000
_SIGNIFICANT = 7

Cells = npt.NDArray[np.float64]


class CellSums:
    """Sums over windows, [H, E] each, by name; nothing is kept of a single window."""

    def __init__(self, windows: WindowSet) -> None:
        self._windows = windows
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, of_windows: Tensor, indices: Tensor) -> None:
        """Add [B, H, C] of the windows `indices` to the sums of `name`."""
        series = self._windows.series
        if series is None:
            added = of_windows.sum(dim=0, dtype=torch.float64)
        else:
            by_series = of_windows.new_zeros((self._windows.pooled_series, of_windows.shape[1]), dtype=torch.float64)
            added = by_series.index_add(0, series[indices], of_windows.squeeze(2).double()).T
        self._sums[name] = self._sums[name] + added if name in self._sums else added

    def of(self, name: str) -> Cells:
        """Return the sums of `name`, [H, E]."""
        return self._sums[name].cpu().numpy()


class Units:
    """The data's units of each window's columns."""

    def __init__(self, windows: WindowSet, scaler: Scaler) -> None:
        self._series = windows.series
        device = windows.values.device
        self._mean = torch.tensor(scaler.mean, dtype=torch.float64, device=device)
        self._std = torch.tensor(scaler.std, dtype=torch.float64, device=device)

    def original(self, scaled: Tensor, indices: Tensor) -> Tensor:
        """Return [B, H, C] of the windows `indices` in the data's units."""
        if self._series is None:
            return scaled * self._std + self._mean
        of_windows = self._series[indices]
        return scaled * self._std[of_windows, None, None] + self._mean[of_windows, None, None]


def add_errors(
    sums: CellSums, kind: str, forecast: Tensor, target: Tensor, known: Tensor | None, indices: Tensor, units: Units
) -> Tensor:
    """Add the errors of one kind of forecast, [B, H, C] in scaled units; returns each window's squared errors, [B]."""
    absolute = _where_known((forecast - target).double().abs(), known)
    forecast, target = forecast.double(), target.double()
    squared = absolute.square()
    sums.add(f"{kind} squared", squared, indices)
    sums.add(f"{kind} absolute", absolute, indices)
    sums.add(f"{kind} smape", _where_known(_smape(forecast, target), known), indices)
    actual, said = units.original(target, indices), units.original(forecast, indices)
    sums.add(f"{kind} original smape", _where_known(_smape(said, actual), known), indices)
    return squared.sum(dim=(1, 2))


def add_counts(sums: CellSums, target: Tensor, known: Tensor | None, indices: Tensor) -> Tensor:
    """Add how many targets are known; returns how many of each window, [B]."""
    counts = torch.ones_like(target) if known is None else known.to(target.dtype)
    sums.add("count", counts, indices)
    return counts.double().sum(dim=(1, 2))


@dataclass(frozen=True)
class Means:
    """Means over cells, [H, E], of which some count more; MASE divides by `naive_errors`, [E] in scaled units."""

    sums: CellSums
    std: Cells
    naive_errors: Cells

    def errors(self, kind: str) -> ForecastErrors:
        """Return the errors of one kind of forecast over all cells, by step, by column, and by both."""
        squared, absolute, smape, original_smape = (
            self.sums.of(f"{kind} {name}") for name in ("squared", "absolute", "smape", "original smape")
        )
        has_scale = ~np.isnan(self.naive_errors)
        multiples = np.where(has_scale, absolute, 0) / np.where(has_scale, self.naive_errors, 1)

        def figures(axes: tuple[int, ...], shown: Callable[[Cells], Any]) -> dict[str, Any]:
            def of_units(std: Cells, relative: Cells) -> dict[str, Any]:
                mse = self.mean(squared * std**2, axes)
                mae, relative = self.mean(absolute * std, axes), self.mean(relative, axes)
                return {"mse": shown(mse), "mae": shown(mae), "rmse": shown(np.sqrt(mse)), "smape": shown(relative)}

            return {
                "scaled": of_units(np.ones_like(self.std), smape),
                "original": of_units(self.std, original_smape),
                "mase": shown(self.mean(multiples, axes, has_scale)),
            }

        both = figures((), _columns) if squared.size <= MAX_CELLS else None
        fields = {"overall": figures((0, 1), _exact), "by_step": figures((1,), known_numbers)}
        return ForecastErrors.model_validate(
            fields | {"by_column": figures((0,), known_numbers), "by_column_and_step": both}
        )

    def mean(self, cells: Cells, axes: tuple[int, ...], columns: npt.NDArray[np.bool_] | None = None) -> Cells:
        """Return the means of sums, [H, E], over some axes, and over some columns alone; NaN where nothing counts."""
        counts = self.sums.of("count")
        totals = (counts if columns is None else np.where(columns, counts, 0)).sum(axis=axes)
        means: Cells = np.where(totals > 0, cells.sum(axis=axes) / np.maximum(totals, 1), np.nan)
        return means


def known_numbers(values: npt.ArrayLike) -> Series:
    """Return numbers as JSON has them, of seven significant digits, None for NaN."""
    return tuple(
        None if math.isnan(value) else float(f"{value:.{_SIGNIFICANT}g}")
        for value in np.asarray(values, dtype=np.float64).tolist()
    )


def _exact(value: Cells) -> float | None:
    return None if np.isnan(value) else float(value)


def _columns(cells: Cells) -> tuple[Series, ...]:
    """Return [H, E] as a list of steps for each column."""
    return tuple(known_numbers(column) for column in cells.T)


def _where_known(errors: Tensor, known: Tensor | None) -> Tensor:
    return errors if known is None else errors.masked_fill(~known, 0)


def _smape(forecast: Tensor, actual: Tensor) -> Tensor:
    both = forecast.abs() + actual.abs()
    return 200 * (forecast - actual).abs() / both.masked_fill(both == 0, 1)
