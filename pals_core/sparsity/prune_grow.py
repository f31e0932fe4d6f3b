"""Which weights are switched off and on: counts, and selection without sorting."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pals_core.sparsity.decision import Move
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.ranking import FirstOf, ascending_keys, descending_keys
from pals_core.sparsity.tensor_threads import elements, tensor_of


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
    """Return `mask` with its `count` smallest active weights, at most all, switched off; of equal ones the first go."""
    if not count:
        return mask
    keys = ascending_keys(weight, mask)
    return _switched(mask, FirstOf.of(keys, count).take(keys))


def prune_smallest_of_all(masks: MaskSet, count: int) -> None:
    """Switch off the `count` smallest active weights of the whole network, but the largest of each tensor never.

    Of equal ones the first go first. Where `count` leaves fewer weights than there are tensors, each keeps one. The
    tensors are gone through one after the other, so that no copy of them all is ever made.
    """
    count = min(count, sum(max(0, active - 1) for active in masks.active.values()))
    if not count:
        return
    names = [name for name, active in masks.active.items() if active > 1]
    chosen = FirstOf.among(lambda: (_keys_but_largest(masks, name) for name in names), count)
    for name in names:
        masks[name] = _switched(masks[name], chosen.take(_keys_but_largest(masks, name)))


def _keys_but_largest(masks: MaskSet, name: str) -> Tensor:
    keys = ascending_keys(masks.parameter(name).detach(), masks[name])
    flat = keys.view(-1)
    # With their sign's bit turned, the keys of candidates are magnitudes, and the others, of key 0, come below them.
    flat[flat.bitwise_xor(torch.iinfo(keys.dtype).min).argmax()] = 0
    return keys


def grow_largest(score: Tensor, mask: Tensor, count: int) -> Tensor:
    """Return `mask` with its `count` largest inactive scores, at most all, switched on; of equal ones the first."""
    if not count:
        return mask
    keys = descending_keys(score, tensor_of(~elements(mask)))
    return _switched(mask, FirstOf.of(keys, count).take(keys))


def _switched(mask: Tensor, places: Tensor) -> Tensor:
    """Return `mask` with these of its weights switched; all of them are active, or all inactive."""
    return tensor_of(elements(mask) ^ elements(places))
