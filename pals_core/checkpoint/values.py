"""The active values of a tensor in the precision of a file.

Shapes: k active values, R rows: the tensor's first axis. Complex values are pairs of reals, [k, 2].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pals_core.checkpoint.header import StoredPrecision
from pals_core.errors import InvalidCheckpoint

STORED_TYPES = {
    StoredPrecision.FP32: torch.float32,
    StoredPrecision.FP16: torch.float16,
    StoredPrecision.BF16: torch.bfloat16,
    StoredPrecision.INT8: torch.int8,
}
# Whole numbers for places are a fifth of the time of indexing with a mask; of a few weights they take little memory.
# Of more at once torch would convert with threads of its own beside the caller's.
_SPREAD_AT_ONCE = 2**15
_LARGEST = 127  # −128 is not used: the scale is symmetric


def active_values(mask: Tensor, *tensors: Tensor) -> list[Tensor]:
    """Return the values, [k], of each tensor where a mask is on, in row-major order; all are of the CPU."""
    # Where they are numpy finds out ten times as fast as torch, which looks for it as well when indexed by booleans.
    places = torch.from_numpy(np.flatnonzero(mask.numpy()))
    return [tensor.reshape(-1).index_select(0, places) for tensor in tensors]


def compress(weight: Tensor, mask: Tensor, precision: StoredPrecision) -> tuple[Tensor, Tensor | None]:
    """Return the active values of a float32 or complex64 tensor as they are stored, and for int8 the scales, [R].

    A scale is the largest magnitude of its row's active values over 127, 0 for a row without any; values are rounded
    to the nearest multiple of it. Raises InvalidCheckpoint for a weight that fp16 cannot hold.
    """
    (values,) = active_values(mask, weight)
    reals = torch.view_as_real(values) if values.is_complex() else values
    if precision is StoredPrecision.INT8:
        rows = torch.view_as_real(weight * mask) if weight.is_complex() else weight * mask
        scales = rows.flatten(1).abs().amax(1) / _LARGEST
        of_values = _of_values(scales, mask, reals)
        # A row of denormal numbers has the scale 0, and all its values are rounded to it.
        steps = torch.where(of_values > 0, reals / of_values, 0)
        return steps.round().clamp(-_LARGEST, _LARGEST).to(torch.int8), scales
    stored = reals.to(STORED_TYPES[precision])
    if not stored.isfinite().all():
        raise InvalidCheckpoint(f"a weight of {float(reals.abs().max()):g} is too large for {precision}; use bf16")
    return stored.contiguous(), None


def spread(stored: Callable[[int, int], Tensor], scales: Tensor | None, mask: Tensor, dense: Tensor) -> None:
    """Write the values that `compress` returned to where the mask is on in `dense`, float32 or complex64.

    `stored(first, stop)` gives some of the values, of which there must be as many as places. Piece by piece: beside
    `dense` it takes little memory.
    """
    active = mask.numpy().reshape(-1)
    weights = torch.view_as_real(dense).view(-1, 2).numpy() if dense.is_complex() else dense.view(-1).numpy()
    row = dense[0].numel() if len(dense) else 0
    taken = 0
    for start in range(0, active.size, _SPREAD_AT_ONCE):
        places = np.flatnonzero(active[start : start + _SPREAD_AT_ONCE]) + start
        reals = stored(taken, taken + len(places)).to(torch.float32).numpy()
        if scales is not None:
            of_values = scales.numpy()[places // row]
            reals = reals * (of_values[:, None] if reals.ndim == 2 else of_values)
        weights[places] = reals
        taken += len(places)


def _of_values(scales: Tensor, mask: Tensor, reals: Tensor) -> Tensor:
    """The scale of each value, [k], or [k, 1] for pairs."""
    of_values = scales.repeat_interleave(mask.flatten(1).sum(1))
    return of_values.unsqueeze(1) if reals.ndim == 2 else of_values
