"""How many weights of each tensor are active, so that the network as a whole has a density; free of torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from pals_core.spec import Allocation

Shape = tuple[int, ...]


def active_count(density: float, weights: int) -> int:
    """Return how many of `weights` are active at `density`, rounded down, so that a target sparsity is reached."""
    # A density is the difference of two rounded fractions: 1 − 0.9 of 1000 weights is 100 of them, not 99.
    return math.floor(density * weights + 1e-6)


def allocate(shapes: Mapping[str, Shape], density: float, allocation: Allocation) -> dict[str, int]:
    """Return how many weights of each tensor are active: at least one, and `active_count` of all in all.

    What rounding down leaves over goes to the tensors that lost the most by it. Nothing passes through an empty
    tensor; the one weight that keeps it open is taken from the tensor that has the most. Only where the density leaves
    fewer weights than there are tensors are more of them active in all.
    """
    densities = erdos_renyi_kernel(shapes, density) if allocation is Allocation.ERK else dict.fromkeys(shapes, density)
    shares = {name: densities[name] * math.prod(shape) for name, shape in shapes.items()}
    active = {name: max(1, math.floor(share)) for name, share in shares.items()}
    wanted = max(active_count(density, _weights(shapes.values())), len(shapes))
    left_over = wanted - sum(active.values())
    by_loss = sorted(shapes, key=lambda name: active[name] - shares[name])
    for name in by_loss[: max(0, left_over)]:
        active[name] += 1
    for _ in range(-left_over):
        active[max(active, key=active.__getitem__)] -= 1
    return active


def shrink_towards(active: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    """Return counts that sum to those `wanted` and exceed `active` nowhere; those active are at least as many in all.

    Rounding may want one weight more of a tensor than it has left; another one then keeps it.
    """
    kept = {name: min(active[name], wanted[name]) for name in wanted}
    owed = sum(wanted.values()) - sum(kept.values())
    for name in kept:
        more = min(owed, active[name] - kept[name])
        kept[name] += more
        owed -= more
    return kept


def erdos_renyi_kernel(shapes: Mapping[str, Shape], density: float) -> dict[str, float]:
    """Return each tensor's density, proportional to (sum of its axes)/(product of its axes), at most 1.

    Tensors that would exceed 1 stay dense and the rest is spread again (RigL, arXiv 1911.11134, section 3).
    """
    dense: set[str] = set()
    while True:
        spread = {name: shape for name, shape in shapes.items() if name not in dense}
        to_spread = density * _weights(shapes.values()) - _weights(shapes[name] for name in dense)
        if not spread:
            return dict.fromkeys(shapes, 1.0)
        scale = to_spread / sum(sum(shape) for shape in spread.values())
        densities = {name: scale * sum(shape) / math.prod(shape) for name, shape in spread.items()}
        highest = max(densities.values())
        if highest <= 1:
            return {name: densities.get(name, 1.0) for name in shapes}
        dense |= {name for name, value in densities.items() if value == highest}


def _weights(shapes: Iterable[Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes)
