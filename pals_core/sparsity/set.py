"""SET: the smallest weights give way to randomly chosen ones (Mocanu et al. 2018, arXiv 1707.04780)."""

from __future__ import annotations

import torch

from pals_core.sparsity.allocation import allocate
from pals_core.sparsity.exchange import ScheduledExchange
from pals_core.sparsity.growth import RandomScores
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.spec import SetMethodSpec


class SetController(ScheduledExchange):
    """Exchanges the constant share ζ of the weights.

    The original ranks positive and negative weights apart and grows to small random values; here, as in RigL's
    comparison (arXiv 1911.11134, table 1), magnitude alone counts and a grown weight starts at 0.
    """

    def __init__(self, spec: SetMethodSpec, masks: MaskSet, schedule: UpdateSchedule, *, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        super().__init__(masks, schedule, RandomScores(masks, generator))
        masks.start_sparse(allocate(masks.shapes, 1 - spec.sparsity, spec.allocation), generator)
