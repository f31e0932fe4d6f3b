"""The pictures of a model card."""

from __future__ import annotations

from pathlib import Path

from matplotlib.ticker import MaxNLocator, PercentFormatter

from pals_core.checkpoint.header import CheckpointHeader
from pals_core.evaluation.document import Evaluation
from pals_core.figures import ACCENT, INK, MUTED, SECOND, add_legend, add_title, new_figure

# Inches. So many layers that their bars need more are drawn thinner, without names where these would overlap.
_BAR, _FRAME, _TALLEST = 0.24, 1.7, 40.0
_MOST_NAMES = 160


def draw_density(path: Path, header: CheckpointHeader) -> None:
    """Draw a bar for each maskable parameter, in the network's order, as long as the share of its weights is on."""
    names, layers = list(header.layers), list(header.layers.values())
    figure, [axes] = new_figure(1, height=min(_TALLEST, _FRAME + _BAR * len(layers)))
    places = range(len(layers))
    axes.barh(places, [1.0] * len(layers), color=MUTED, alpha=0.15, height=0.8)
    axes.barh(places, [1 - layer.sparsity for layer in layers], color=SECOND, height=0.8)
    axes.axvline(1 - header.sparsity, color=ACCENT, linewidth=1.4, linestyle=(0, (4, 2)))
    axes.set_yticks(places if len(names) <= _MOST_NAMES else [], labels=names if len(names) <= _MOST_NAMES else [])
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.grid(visible=False)
    axes.set_ylim(len(layers) - 0.5, -0.5)  # the first on top
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("weights that are on")
    on = f"{header.active_parameters:,} of {header.maskable_parameters:,} weights are on, the share of the dashed line"
    add_title(axes, "Density of each layer", on)
    figure.savefig(path)


def draw_errors(path: Path, evaluation: Evaluation) -> None:
    """Draw mean squared and absolute error by horizon step, beside those of the seasonal naive forecast."""
    figure, both = new_figure(2, height=6.2)
    steps = range(1, evaluation.horizon + 1)
    marker = "o" if evaluation.horizon < 50 else ""
    kinds = [("forecaster", evaluation.forecaster, ACCENT), ("seasonal naive", evaluation.naive, INK)]
    for axes, of_kind in zip(both, ("mse", "mae"), strict=True):
        for label, kind, colour in kinds:
            numbers = [float("nan") if number is None else number for number in getattr(kind.by_step.scaled, of_kind)]
            axes.plot(steps, numbers, color=colour, linewidth=1.8, marker=marker, markersize=4, label=label)
        axes.set_ylabel(f"{of_kind.upper()} (scaled)")
        axes.set_ylim(bottom=0)
    both[1].set_xlabel("horizon step")
    both[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(both[0], "lower right")  # errors are drawn from 0 on
    add_title(both[0], "Errors by horizon step", "means over the windows of the evaluation")
    figure.savefig(path)
