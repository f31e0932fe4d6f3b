"""What this processor is good at, as far as rules ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def has_avx512_of(maker: str) -> bool:
    """Return whether the processor is of `maker` (`AMD`, `Intel`) and has AVX-512."""
    known = _capabilities()
    return str(known.get("cpu_name")).startswith(maker) and bool(known.get("avx512_f", False))


def multiplies_bf16() -> bool:
    """Return whether the processor has instructions for products of bfloat16, be they faster than others or not."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def compresses_fast() -> bool:
    """Return whether AVX-512 stores some of a register's numbers side by side at the speed of any other store.

    Intel's processors do, and AMD's from Zen 5 on, the first of theirs to intersect pairs of registers; Zen 4 takes
    over a hundred cycles for each.
    """
    intersects = bool(_capabilities().get("avx512_vp2intersect", False))
    return has_avx512_of("Intel") or (has_avx512_of("AMD") and intersects)


def _capabilities() -> Mapping[str, Any]:
    known: Mapping[str, Any] = torch.cpu.get_capabilities()
    return known
