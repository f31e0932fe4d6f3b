"""The smallest or largest magnitudes among candidates, exactly, without sorting.

A magnitude's bits, read as a whole number, rank as the magnitude does; with the sign's bit set the number is below 0.
Of one tensor's, numpy's partition finds the one of a wanted rank (vectorised, a millisecond for a million). Over
several tensors one pass counts the upper 16 bits, which leaves the few candidates that share those of the wanted rank,
and only among these is anything ordered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_UPPER_BITS = 16


def ascending_keys(values: Tensor, candidates: Tensor) -> Tensor:
    """Return whole numbers that rank `values` by magnitude, smallest first; 0, which comes last, for no candidate.

    Values are of single or double precision, or complex; keys have their shape.
    """
    bits = _bits(values)
    return (bits | torch.iinfo(bits.dtype).min).mul_(candidates.view(torch.int8))


def descending_keys(values: Tensor, candidates: Tensor) -> Tensor:
    """Return whole numbers that rank `values` by magnitude, largest first; 0, which comes last, for no candidate."""
    bits = _bits(values)
    return (~bits).bitwise_or_(torch.iinfo(bits.dtype).min).mul_(candidates.view(torch.int8))


@dataclass
class FirstOf:
    """Takes the first keys of one or several tensors in turn; of equal ones those that come first."""

    last_key: int
    equal_ones: int  # how many keys like the last one are still to be taken
    all_equal_ones: bool  # whether these are all there are

    @classmethod
    def of(cls, keys: Tensor, count: int) -> FirstOf:
        """Find the `count`-th key, from 1, of one tensor."""
        flat = keys.flatten()
        if flat.device.type != "cpu":
            return cls._ending_at(int(flat.kthvalue(count).values), flat, count)
        ordered = np.partition(flat.numpy(), count - 1)
        last = ordered[count - 1]
        equal_ones = int(np.count_nonzero(ordered[:count] == last))
        return cls(int(last), equal_ones, not (ordered[count:] == last).any())

    @classmethod
    def among(cls, tensors: Callable[[], Iterable[Tensor]], count: int) -> FirstOf:
        """Find the `count`-th key, from 1, of all tensors that `tensors` yields; it is called twice."""
        counts: Tensor | None = None
        for keys in tensors():
            of_tensor = torch.bincount(_upper(keys).flatten(), minlength=2**_UPPER_BITS)
            counts = of_tensor if counts is None else counts + of_tensor
        if counts is None:
            raise ValueError("there is nothing to rank")
        up_to = counts.cumsum(0)
        group = int(torch.searchsorted(up_to, count))
        rank = count - (int(up_to[group - 1]) if group else 0)
        members = torch.cat([keys[_upper(keys) == group] for keys in tensors()])
        return cls._ending_at(int(members.sort().values[rank - 1]), members, rank)

    @classmethod
    def _ending_at(cls, last: int, keys: Tensor, rank: int) -> FirstOf:
        equal_ones = rank - int((keys < last).sum())
        return cls(last, equal_ones, equal_ones == int((keys == last).sum()))

    def take(self, keys: Tensor) -> Tensor:
        """Mark those of `keys`, boolean in their shape; for several tensors to be called once each, in their order."""
        if self.all_equal_ones:
            return keys <= self.last_key
        taken = keys < self.last_key
        equal = _places(keys == self.last_key)[: self.equal_ones]
        self.equal_ones -= len(equal)
        taken.view(-1)[equal] = True
        return taken


def _places(marks: Tensor) -> Tensor:
    """Return where `marks` are set, counted through all axes."""
    flat = marks.flatten()
    # Of few marks numpy finds the places in a fraction of torch's time.
    if flat.device.type != "cpu":
        return flat.nonzero().flatten()
    return torch.from_numpy(np.flatnonzero(flat.numpy()))


def _bits(values: Tensor) -> Tensor:
    """Return the bits, sign included, as whole numbers."""
    real = (values.abs() if values.is_complex() else values).contiguous()
    return real.view(torch.int64 if real.dtype == torch.float64 else torch.int32)


def _upper(keys: Tensor) -> Tensor:
    """Return the upper bits as numbers from 0 on."""
    return (keys >> (torch.iinfo(keys.dtype).bits - _UPPER_BITS)).add_(2 ** (_UPPER_BITS - 1))
