"""Spectra over time.

Shapes: T time steps, the last axis; T//2 + 1 frequencies.
"""

from __future__ import annotations

import torch
from torch import Tensor


def spectrum(x: Tensor, length: int | None = None) -> Tensor:
    """Return the complex spectrum, [..., T//2 + 1], of real [..., T], zero-padded at the end or cut to `length`.

    In single precision where `x` has less: Fourier transforms know no bfloat16.
    """
    frequencies: Tensor = torch.fft.rfft(x.to(torch.promote_types(x.dtype, torch.float32)), n=length)
    return frequencies


def signal(frequencies: Tensor, length: int) -> Tensor:
    """Return the real [..., length] of a spectrum [..., length//2 + 1]."""
    values: Tensor = torch.fft.irfft(frequencies, n=length)
    return values
