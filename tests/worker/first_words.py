"""What a small training says first."""

from __future__ import annotations

from pals_core.spec import Precision
from pals_core.training.arithmetic import Products
from pals_core.training.events import Started

STARTED = Started(
    total_steps=20,
    steps_per_epoch=10,
    epochs=2,
    device="cpu",
    threads=1,
    precision=Precision.FP32,
    products=Products.TORCH,
    compiled=False,
    total_parameters=110,
    maskable_parameters=100,
    sparsity=0.0,
    reproducible=True,
)
