"""The smallest or largest magnitudes among candidates, exactly, without sorting.

A magnitude's bits, read as a whole number, rank as the magnitude does; with the sign's bit set the number is below 0.
Of one tensor's, counting how many are below a value, some six times, leaves few around the one of a wanted rank, and
only these are ordered, unless the processor parts all of them in less time. Over several tensors one pass counts the
upper 16 bits, which leaves those that share the ones of the wanted rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pals_core.processor import compresses_fast
from pals_core.sparsity.tensor_threads import elements, tensor_of

_UPPER_BITS = 16
# Keys in a sample, passes over all keys at most, and keys so few that ordering them takes less than another pass.
_SAMPLE = 4096
_PASSES = 8
_FEW = 4096

Keys = npt.NDArray[np.integer[Any]]


def ascending_keys(values: Tensor, candidates: Tensor) -> Tensor:
    """Return whole numbers that rank `values` by magnitude, smallest first; 0, which comes last, for no candidate.

    Values are of single or double precision, or complex; keys have their shape.
    """
    return _keys(values, candidates, descending=False)


def descending_keys(values: Tensor, candidates: Tensor) -> Tensor:
    """Return whole numbers that rank `values` by magnitude, largest first; 0, which comes last, for no candidate."""
    return _keys(values, candidates, descending=True)


@dataclass
class FirstOf:
    """Takes the first keys of one or several tensors in turn; of equal ones those that come first."""

    last_key: int
    equal_ones: int  # how many keys like the last one are still to be taken
    all_equal_ones: bool  # whether these are all there are

    @classmethod
    def of(cls, keys: Tensor, count: int) -> FirstOf:
        """Find the `count`-th key, from 1, of one tensor."""
        if keys.device.type == "cpu":
            return cls._among_few(keys.flatten().numpy(), count)
        last = int(keys.flatten().kthvalue(count).values)
        equal_ones = count - int((keys < last).sum())
        return cls(last, equal_ones, equal_ones == int((keys == last).sum()))

    @classmethod
    def _among_few(cls, keys: Keys, count: int) -> FirstOf:
        """Find it, where that is faster by ordering only the keys around it, which counting tells from the others.

        With AVX-512 `np.partition` gathers the keys on either side in registers, and stores what it gathered. For 1 M
        keys that takes 0.6 ms on an Intel Xeon, where counting takes 2, and 0.35 on a Zen 5, where it takes 0.6; on a
        Zen 4 it takes 50 times a count.
        """
        keys, below = (keys, 0) if compresses_fast() else _around(keys, count)
        rank = count - below
        ordered = np.partition(keys, rank - 1)
        last = ordered[rank - 1]
        equal_ones = int(np.count_nonzero(ordered[:rank] == last))
        return cls(int(last), equal_ones, not (ordered[rank:] == last).any())

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
        return cls.of(torch.cat([keys[_upper(keys) == group] for keys in tensors()]), rank)

    def take(self, keys: Tensor) -> Tensor:
        """Mark those of `keys`, boolean in their shape; for several tensors to be called once each, in their order.

        There are as many candidates as are to be taken, or more: none that is no candidate is marked.
        """
        if self.all_equal_ones:
            return _below(keys, self.last_key + 1)
        taken = _below(keys, self.last_key)
        equal = _places_of(self.last_key, keys)[: self.equal_ones]
        self.equal_ones -= len(equal)
        elements(taken.view(-1))[elements(equal)] = True
        return taken


def _around(keys: Keys, count: int) -> tuple[Keys, int]:
    """Return the keys between two values, the `count`-th of all among them, and how many are below these.

    Each pass counts the keys below a value, which takes a fiftieth of what it takes to partition them: a sample tells
    the first two values, the shares of the keys on both sides the next ones (Floyd and Rivest 1975, SELECT).
    """
    if len(keys) < 4 * _SAMPLE:
        return keys, 0
    # An odd stride, lest all of the sample be of a few columns.
    sample = np.sort(keys[:: len(keys) // _SAMPLE | 1])
    rank = count * len(sample) / len(keys)
    spread = 3 * math.sqrt(rank * (1 - rank / len(sample))) + 1
    values = [int(sample[min(max(int(at), 0), len(sample) - 1)]) for at in (rank - spread, rank + spread)]
    # Fewer than `count` keys lie below `low`, and at least `count` below `high`; no key is the largest of all numbers.
    limits = np.iinfo(keys.dtype)
    low, below_low, high, below_high = int(limits.min), 0, int(limits.max), len(keys)
    for _ in range(_PASSES):
        if below_high - below_low < _FEW:
            break
        if values:
            value = values.pop()
        else:
            left, right = count - below_low, below_high - count
            margin = 2 * math.sqrt(left + right)
            # Beyond the wanted key, seen from the end that is farther away.
            aim = left - margin if left > right else left + margin
            value = low + int((high - low) * aim / (left + right))
        value = min(max(value, low), high)
        below = int(np.count_nonzero(keys < value))
        if below < count:
            low, below_low = value, below
        else:
            high, below_high = value, below
    return keys[np.flatnonzero((keys >= low) & (keys < high))], below_low


def _keys(values: Tensor, candidates: Tensor, *, descending: bool) -> Tensor:
    bits = _bits(values)
    limits = torch.iinfo(bits.dtype)
    numbers = elements(bits) | limits.min
    if descending:
        numbers ^= limits.max
    numbers *= elements(candidates.view(torch.int8))
    return tensor_of(numbers)


def _below(keys: Tensor, value: int) -> Tensor:
    """Return which keys lie below a value."""
    return tensor_of(elements(keys) < value)


def _places_of(value: int, keys: Tensor) -> Tensor:
    """Return where keys have a value, counted through all axes."""
    if keys.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(keys.numpy() == value))
    return (keys.flatten() == value).nonzero().flatten()


def _bits(values: Tensor) -> Tensor:
    """Return the bits, sign included, as whole numbers."""
    real = (values.abs() if values.is_complex() else values).contiguous()
    return real.view(torch.int64 if real.dtype == torch.float64 else torch.int32)


def _upper(keys: Tensor) -> Tensor:
    """Return the upper bits as numbers from 0 on."""
    return (keys >> (torch.iinfo(keys.dtype).bits - _UPPER_BITS)).add_(2 ** (_UPPER_BITS - 1))
