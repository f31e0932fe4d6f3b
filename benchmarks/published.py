"""What the authors' published program reaches, to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# Illness, 36 steps in and 24 ahead, NSTransformer at full size, Δt = 5, γ = λ = 1.1, over all 170 test windows.
ILLNESS_24_NSTRANSFORMER = {"mse": 2.538, "mae": 0.989, "sparsity": 0.54, "dense_mse": 2.598, "dense_mae": 0.994}


class Measured(NamedTuple):
    """Seconds of single parts of the published program's training of NSTransformer at full size, batches of 32."""

    where: str
    parts: Mapping[str, float]


# Measured by running it, not published.
SECONDS = {
    "illness": Measured(
        "published program, other two cores, mean of 152 steps",
        {"forward": 69 / 152, "backward": 86 / 152, "optimiser": 11 / 152, "mask update": 1.9},
    ),
    "etth1": Measured("published program, other two cores, exchange series, 96 → 96", {"forward and backward": 2.25}),
}
