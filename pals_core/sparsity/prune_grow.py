"""Which weights are switched off and on: counts, and selection without sorting."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from pals_core.sparsity.decision import Move
from pals_core.sparsity.masks import MaskSet


def exchange_counts(move: Move, active: int, inactive: int, rate: float, factor: float) -> tuple[int, int]:
    """Return how many weights of one tensor to prune and then to grow.

    `rate` is ζ(t), `factor` γ. The products are taken in double precision in this very order, which
    decides the count where a product is close to a whole number (arXiv 2305.18382, Algorithm 1). A tensor keeps at
    least one active weight: p is rounded up and its share of p down, so that shrink after shrink would empty a small
    tensor, through which nothing passes any more and which nothing ever fills again.
    """
    if move is Move.SHRINK:
        prune = math.ceil((rate * active) * factor)
        grow = math.floor(prune * (1 / factor))
    elif move is Move.EXPAND:
        prune = math.ceil(rate * active)
        grow = math.floor(prune * factor)
    else:
        prune = grow = math.ceil(rate * active)
    prune = min(prune, active)
    if prune == active:
        grow = max(grow, 1)
    return prune, min(grow, inactive + prune)


def prune_smallest(weight: Tensor, mask: Tensor, count: int) -> Tensor:
    """Return `mask` with its `count` smallest active weights switched off; of equal ones the first go first."""
    return mask & ~_smallest(weight.abs(), mask, count)


def prune_smallest_of_all(masks: MaskSet, count: int) -> None:
    """Switch off the `count` smallest active weights of the whole network, but the largest of each tensor never.

    Of equal ones the first go first. Where `count` leaves fewer weights than there are tensors, each keeps one.
    """
    magnitudes = torch.cat([masks.parameter(name).detach().abs().flatten() for name in masks])
    active = torch.cat([masks[name].flatten() for name in masks])
    spans = _spans(masks)
    candidates = active.clone()
    for start, stop in spans.values():
        largest = torch.where(active[start:stop], magnitudes[start:stop], -1.0).argmax()
        candidates[start + largest] = False
    kept = active & ~_smallest(magnitudes, candidates, min(count, int(candidates.sum())))
    for name, (start, stop) in spans.items():
        masks[name] = kept[start:stop].view(masks[name].shape)


def _spans(masks: MaskSet) -> dict[str, tuple[int, int]]:
    """Return where each tensor lies among all maskable weights in a row."""
    stops = list(itertools.accumulate(masks[name].numel() for name in masks))
    return {name: (stop - masks[name].numel(), stop) for name, stop in zip(masks, stops, strict=True)}


def grow_largest(score: Tensor, mask: Tensor, count: int) -> Tensor:
    """Return `mask` with its `count` largest inactive scores switched on; of equal ones the first come first."""
    return mask | _smallest(-score.abs(), ~mask, count)


def _smallest(values: Tensor, candidates: Tensor, count: int) -> Tensor:
    """Mark exactly `count` smallest values among the candidates, of which there must be as many."""
    if count == 0:
        return torch.zeros_like(candidates)
    flat = torch.where(candidates, values, math.inf).flatten()
    threshold = _kth_smallest(flat, count)
    chosen = flat < threshold
    tied = ((flat == threshold) & candidates.flatten()).nonzero().flatten()
    chosen[tied[: count - int(chosen.sum())]] = True
    return chosen.view_as(candidates)


def _kth_smallest(flat: Tensor, k: int) -> float:
    if flat.device.type == "cpu":
        # numpy selects with vector instructions: ten times faster than kthvalue on a million values.
        return float(np.partition(flat.numpy(), k - 1)[k - 1])
    return float(flat.kthvalue(k).values)
