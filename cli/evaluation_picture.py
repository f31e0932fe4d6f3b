"""The picture of an evaluation: how errors grow with the horizon, and how the worst and the best forecast look."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import MaxNLocator

from pals_core.figures import ACCENT, INK, MUTED, add_legend, add_title, days, new_figure

if TYPE_CHECKING:
    from pals_client import Evaluation


def draw_evaluation(path: Path, evaluation: Evaluation, column: str | None = None) -> None:
    """Draw the errors by horizon step beside the naive forecast's, and the worst, the median and the best window.

    The errors are mean absolute ones in the data's own units where there is one column, else as multiples of the naive
    forecast's over the training part. Of each window `column` is drawn, or else its first one.
    """
    samples = evaluation["samples"]
    figure, [errors, *windows] = new_figure(1 + len(samples), height=3.4 + 2.4 * len(samples), share_x=False)
    _draw_errors(errors, evaluation)
    for axes, sample in zip(windows, samples, strict=True):
        _draw_window(axes, sample, column)
    add_legend(windows[0], "upper left")
    add_title(
        errors,
        "Errors on the test part",
        f"{evaluation['windows']:,} forecasts, beside the values {evaluation['season']} steps before, repeated",
    )
    figure.savefig(path)


def _draw_errors(axes: Axes, evaluation: Evaluation) -> None:
    steps = range(1, evaluation["horizon"] + 1)
    alone = len(evaluation["columns"]) == 1
    for kind, label, colour, width in (
        ("forecaster", "forecaster", ACCENT, 2.2),
        ("naive", "seasonal naive", MUTED, 1.6),
    ):
        of_kind: dict[str, Any] = evaluation[kind]  # type: ignore[literal-required]
        by_step = of_kind["by_step"]
        values = by_step["original"]["mae"] if alone else by_step["mase"] or by_step["scaled"]["mae"]
        axes.plot(steps, _numbers(values), color=colour, linewidth=width, label=label)
    axes.set_ylim(bottom=0)
    axes.set_xlim(1, max(2, evaluation["horizon"]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step of the horizon")
    axes.set_ylabel("mean absolute error" if alone else "MASE")
    add_legend(axes, "lower right")


def _draw_window(axes: Axes, sample: dict[str, Any], column: str | None) -> None:
    name = column if column in sample["columns"] else sample["columns"][0]
    past, ahead = _times(sample["history_timestamps"]), _times(sample["timestamps"])
    for shade, interval in enumerate(reversed(sample["intervals"])):
        axes.fill_between(
            ahead, _numbers(interval["lower"][name]), _numbers(interval["upper"][name]),
            color=ACCENT, alpha=0.10 + 0.08 * shade, linewidth=0, label=f"{interval['level']:g} % interval",
        )  # fmt: skip
    actual = [*sample["history"][name], *sample["actual"][name]]
    axes.plot([*past, *ahead], _numbers(actual), color=INK, linewidth=1.4, label="actual")
    axes.plot(ahead, _numbers(sample["naive"][name]), color=MUTED, linewidth=1.2, label="seasonal naive")
    axes.plot(ahead, _numbers(sample["forecast"][name]), color=ACCENT, linewidth=2, label="forecast")
    axes.axvline(ahead[0], color=MUTED, linewidth=0.8, linestyle=":")
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.margins(x=0.01)
    axes.set_ylabel(f"{sample['rank']}: {sample['series'] or name}")


def _numbers(values: Sequence[float | None]) -> npt.NDArray[np.float64]:
    """Values to draw, with a gap where one is not known."""
    return np.array([np.nan if value is None else value for value in values])


def _times(timestamps: Sequence[str]) -> list[float]:
    return days([datetime.fromisoformat(moment) for moment in timestamps])
