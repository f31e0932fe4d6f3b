"""Which class stands behind each method name of the spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
from pals_core.spec import DenseMethodSpec, Spec, StaticMethodSpec

# Those that change masks on a schedule. Each takes its own method spec, the masks, the schedule and a seed.
UPDATING: Mapping[str, Callable[..., SparsityMethod]] = {
    "pals": PalsController,
    "granet": GranetController,
    "gmp": GmpController,
    "rigl": RiglController,
    "set": SetController,
}


def build_method(spec: Spec, masks: MaskSet, steps_per_epoch: int) -> SparsityMethod:
    """Return the method of a resolved spec in charge of `masks`, which it may start sparse."""
    method, seed = spec.method, spec.training.seed
    if isinstance(method, DenseMethodSpec):
        return FixedMasks()
    if isinstance(method, StaticMethodSpec):
        return StaticController(method, masks, seed=seed)
    schedule = UpdateSchedule.of(method, epochs=spec.training.epochs, steps_per_epoch=steps_per_epoch)
    return UPDATING[method.name](method, masks, schedule, seed=seed)
