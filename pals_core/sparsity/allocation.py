"""How a sparse start spreads its active weights over the layers; free of torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from pals_core.spec import Allocation

Shape = tuple[int, ...]


def allocate(shapes: Mapping[str, Shape], density: float, allocation: Allocation) -> dict[str, int]:
    """Return how many weights of each tensor start active, so that about `density` of all do."""
    densities = erdos_renyi_kernel(shapes, density) if allocation is Allocation.ERK else dict.fromkeys(shapes, density)
    return {name: round(densities[name] * math.prod(shape)) for name, shape in shapes.items()}


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
