"""The demonstration's pictures of the forecast and of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.dates import ConciseDateFormatter, MonthLocator
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from pals_core.figures import ACCENT, GRID, INK, MUTED, SECOND, THIRD, add_legend, add_title, days, new_figure

if TYPE_CHECKING:
    from cli.example_series import Series
    from pals_client import Event, MetricSeries

HISTORY_WEEKS = 156
MOVES = {"shrink": (THIRD, "v"), "stable": (MUTED, "o"), "expand": (ACCENT, "^")}


def draw_forecast(path: Path, *, history: Series, hindcast: Series, forecast: Series, sparsity: float) -> None:
    """Draw the end of the record, the forecast of its last year and that of the year after it."""
    figure, [axes] = new_figure(1, height=5.0)
    shown = slice(-HISTORY_WEEKS, None)
    axes.plot(days(history.times[shown]), history.values[shown], color=INK, linewidth=1.4, label="measured")
    axes.plot(
        days(hindcast.times), hindcast.values, color=SECOND, linewidth=1.6, linestyle=(0, (4, 2)),
        label="forecast made a year before",
    )  # fmt: skip
    # Joined to the last measurement, so that the eye sees one line go on.
    ahead = days([history.times[-1], *forecast.times])
    axes.plot(ahead, [history.values[-1], *forecast.values], color=ACCENT, linewidth=2.2, label="forecast")
    axes.axvspan(ahead[0], ahead[-1], color=ACCENT, alpha=0.06, linewidth=0)
    axes.margins(x=0.01)
    half_years = MonthLocator(bymonth=(1, 7))  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(half_years)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(half_years, show_offset=False))  # type: ignore[no-untyped-call]
    axes.set_ylabel("CO$_2$ in the air (ppm)")
    add_legend(axes, "upper left")
    title = f"Atmospheric CO$_2$ at Mauna Loa, {len(forecast.times)} weeks ahead"
    add_title(axes, title, f"weekly means; a forecaster of which PALS switched off {sparsity:.0%} of the weights")
    figure.savefig(path)


def draw_training(path: Path, *, metrics: Mapping[str, MetricSeries], updates: Sequence[Event], best_step: int) -> None:
    """Draw losses and sparsity over the optimiser steps, with what each mask update did."""
    figure, [losses, sparsity] = new_figure(2, height=6.2)
    train, validation, sparse = (metrics[name] for name in ("train_loss", "validation_loss", "sparsity"))
    losses.plot(train["steps"], train["values"], color=MUTED, linewidth=0.9, alpha=0.8, label="training batch")
    losses.plot(
        validation["steps"], validation["values"], color=SECOND, linewidth=1.8, marker="o", markersize=5,
        label="validation part",
    )  # fmt: skip
    losses.set_yscale("log")
    losses.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    losses.yaxis.set_minor_locator(NullLocator())
    losses.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
    losses.set_ylabel("loss (MSE, scaled)")

    sparsity.step(
        [*sparse["steps"], train["steps"][-1]],
        [*sparse["values"], sparse["values"][-1]],
        where="post", color=INK, linewidth=1.2, zorder=2,
    )  # fmt: skip
    for move, (colour, marker) in MOVES.items():
        made = [event["data"] for event in updates if event["data"]["move"] == move]
        sparsity.scatter(
            [update["step"] for update in made],
            [update["sparsity"] for update in made],
            color=colour, marker=marker, s=26, zorder=3, label=f"{move} ({len(made)})",
        )  # fmt: skip
    sparsity.set_ylabel("sparsity")
    sparsity.set_ylim(0, 1)
    sparsity.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    sparsity.set_xlabel("optimiser step")
    sparsity.xaxis.set_major_locator(MaxNLocator(integer=True))
    sparsity.set_xlim(0, train["steps"][-1] * 1.01)
    for axes, label in ((losses, "best checkpoint"), (sparsity, None)):
        axes.axvline(best_step, color=ACCENT, linewidth=1, linestyle=":", zorder=1, label=label)
    if updates and updates[-1]["data"]["step"] < train["steps"][-1]:
        sparsity.axvspan(updates[-1]["data"]["step"], train["steps"][-1], color=GRID, alpha=0.5, linewidth=0)
        sparsity.annotate(
            "masks frozen", (train["steps"][-1], 1), xytext=(-6, -6), textcoords="offset points", ha="right", va="top",
            color=MUTED, fontsize=9,
        )  # fmt: skip
    add_legend(losses, "upper right")
    add_legend(sparsity, "lower right" if sparse["values"][-1] > 0.5 else "upper right")
    add_title(
        losses,
        "Loss and sparsity while training",
        "each mask update shrinks, keeps or expands the network, as the validation loss decides",
    )
    figure.savefig(path)
