"""How the project's pictures look."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import date2num
from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
ACCENT, SECOND, THIRD = "#c2410c", "#2563eb", "#0f766e"


def new_figure(rows: int, *, height: float, share_x: bool = True) -> tuple[Figure, list[Axes]]:
    """Return a figure of 10 by `height` inches and its axes, one above the other, with a common x axis or none."""
    figure = Figure(figsize=(10, height), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    grid: Any = figure.subplots(rows, 1, sharex=share_x, squeeze=False)
    axes = [row[0] for row in grid]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.spines[["left", "bottom"]].set_color(MUTED)
        each.tick_params(colors=MUTED, labelcolor=INK)
        each.yaxis.label.set_color(INK)
        each.xaxis.label.set_color(INK)
        each.grid(axis="y", color=GRID, linewidth=0.8)
        each.set_axisbelow(True)
    return figure, axes


def days(times: Sequence[datetime]) -> list[float]:
    """Return times as the axes count them."""
    return [float(date2num(moment)) for moment in times]  # type: ignore[no-untyped-call]


def add_legend(axes: Axes, place: Literal["upper left", "upper right", "lower right"]) -> None:
    """Name what is drawn, in one row inside of the axes."""
    axes.legend(loc=place, fontsize=9, labelcolor=INK, ncols=4, facecolor="white", edgecolor="none", framealpha=0.9)


def add_title(axes: Axes, title: str, subtitle: str) -> None:
    """Say above the axes what they show, and in smaller letters what to know of it."""
    axes.set_title(title, loc="left", fontsize=14, fontweight="bold", color=INK, pad=30)
    axes.annotate(
        subtitle, (0, 1), xycoords="axes fraction", xytext=(0, 10), textcoords="offset points", fontsize=10, color=MUTED
    )
