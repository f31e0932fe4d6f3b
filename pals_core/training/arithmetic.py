"""How a training computes, as plain data, free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pals_core.spec import Precision


class Products(StrEnum):
    """Whose fp32 products a training's linear layers use."""

    TORCH = "torch"  # PyTorch's own
    ONEDNN = "onednn"


@dataclass(frozen=True)
class Arithmetic:
    """How matrix products are computed; part of what a training's result depends on."""

    precision: Precision = Precision.FP32  # never auto
    compiled: bool = False
    products: Products = Products.TORCH  # of linear layers in fp32
