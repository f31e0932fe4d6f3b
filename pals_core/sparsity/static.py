"""Static sparse training: a random mask that never changes, the baseline of SET (Mocanu et al. 2018)."""

from __future__ import annotations

import torch

from pals_core.sparsity.allocation import allocate
from pals_core.sparsity.fixed import FixedMasks
from pals_core.sparsity.masks import MaskSet
from pals_core.spec import StaticMethodSpec


class StaticController(FixedMasks):
    """Draws the masks once."""

    def __init__(self, spec: StaticMethodSpec, masks: MaskSet, *, seed: int) -> None:
        """Start `masks` sparse at positions drawn from `seed`."""
        active = allocate(masks.shapes, 1 - spec.sparsity, spec.allocation)
        masks.start_sparse(active, torch.Generator().manual_seed(seed))
