"""RigL: the smallest weights give way to those of the largest gradient (Evci et al., arXiv 1911.11134)."""

from __future__ import annotations

import torch

from pals_core.sparsity.allocation import allocate
from pals_core.sparsity.exchange import ScheduledExchange
from pals_core.sparsity.growth import growth_scores
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.spec import RiglMethodSpec


class RiglController(ScheduledExchange):
    """Exchanges a share of the weights that falls from α to 0 at T_end along a cosine (section 3, Algorithm 1)."""

    def __init__(self, spec: RiglMethodSpec, masks: MaskSet, schedule: UpdateSchedule, *, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        super().__init__(masks, schedule, growth_scores(spec.growth, masks, generator))
        masks.start_sparse(allocate(masks.shapes, 1 - spec.sparsity, spec.allocation), generator)
