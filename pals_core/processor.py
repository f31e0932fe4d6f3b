"""What this processor is good at, as far as rules ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def has_avx512_of(maker: str) -> bool:
    """Return whether the processor is of `maker` (`AMD`, `Intel`) and has AVX-512."""
    known: Mapping[str, Any] = torch.cpu.get_capabilities()
    return str(known.get("cpu_name")).startswith(maker) and bool(known.get("avx512_f", False))
