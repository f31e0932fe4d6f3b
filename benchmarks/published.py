"""What the authors' published program reaches, to compare with."""

from __future__ import annotations

# Illness, 36 steps in and 24 ahead, NSTransformer at full size, Δt = 5, γ = λ = 1.1, over all 170 test windows.
ILLNESS_24_NSTRANSFORMER = {"mse": 2.538, "mae": 0.989, "sparsity": 0.54, "dense_mse": 2.598, "dense_mae": 0.994}
