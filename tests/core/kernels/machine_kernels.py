"""The kernels of linear layers, those marked for which a processor needs instructions that not every one has."""

from __future__ import annotations

import pytest

from pals_core.kernels.linear import MAKERS, Kernel, available

KERNELS = [
    pytest.param(kernel, marks=pytest.mark.instructions) if kernel in (Kernel.BF16, Kernel.INT8) else kernel
    for kernel in MAKERS
]


def needs(kernel: Kernel) -> None:
    if not available(kernel):
        pytest.skip(f"this machine has no {kernel}")
