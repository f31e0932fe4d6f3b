"""Which class stands behind each method name of the spec."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from pals_core.errors import InvalidSpec, Problem
from pals_core.sparsity.allocation import active_count
from pals_core.sparsity.fixed import FixedMasks
from pals_core.sparsity.gmp import GmpController
from pals_core.sparsity.granet import GranetController
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.method import SparsityMethod
from pals_core.sparsity.pals import PalsController
from pals_core.sparsity.rigl import RiglController
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.sparsity.set import SetController
from pals_core.sparsity.static import StaticController
from pals_core.spec import DenseMethodSpec, Spec, StaticMethodSpec, TargetMethodSpec

# Those that change masks on a schedule. Each takes its own method spec, the masks, the schedule and a seed.
UPDATING: Mapping[str, Callable[..., SparsityMethod]] = {
    "pals": PalsController,
    "granet": GranetController,
    "gmp": GmpController,
    "rigl": RiglController,
    "set": SetController,
}


def build_method(spec: Spec, masks: MaskSet, steps_per_epoch: int) -> SparsityMethod:
    """Return the method of a resolved spec in charge of `masks`, which it may start sparse.

    Raises InvalidSpec for a target that the network cannot reach, since every tensor keeps a weight.
    """
    method, seed = spec.method, spec.training.seed
    if isinstance(method, TargetMethodSpec):
        _require_reachable(method.sparsity, masks)
    if isinstance(method, DenseMethodSpec):
        return FixedMasks()
    if isinstance(method, StaticMethodSpec):
        return StaticController(method, masks, seed=seed)
    schedule = UpdateSchedule.of(method, epochs=spec.training.epochs, steps_per_epoch=steps_per_epoch)
    return UPDATING[method.name](method, masks, schedule, seed=seed)


def _require_reachable(sparsity: float, masks: MaskSet) -> None:
    weights, tensors = masks.maskable_parameters, len(masks.shapes)
    if active_count(1 - sparsity, weights) >= tensors:
        return
    most = math.floor(10_000 * (1 - tensors / weights)) / 10_000
    message = (
        f"sparsity {sparsity:g} would leave fewer than one weight to each of the network's {tensors} tensors, "
        f"which have {weights} weights: at most {most:g} can be reached"
    )
    raise InvalidSpec(message, (Problem(message, pointer="/method/sparsity"),))
