"""Which weights of a tensor are active, in at most one bit for each and fewer where one kind is rare.

The code of N weights, in row-major order, is empty where all are active. Otherwise its first byte says what is coded:
the bits 0 to 6 are b, at most 4, and bit 7 is 0 when the places of the active weights are coded, 1 when those of the
inactive ones are. With these places p₁ < … < p_k, and N for the place after the last, there are k + 1 gaps
g_i = p_i − p_{i−1} − 1, where p₀ = −1: a Golomb–Rice code with parameter 2^b (S. W. Golomb, "Run-length encodings",
1966; R. F. Rice, 1979), its two parts in two streams of bits, the first bit of a byte the lowest. First b bit planes of
k + 1 bits each, the lowest bits of the gaps first, filled up with zeros to a whole byte; then for each gap ⌊g_i / 2^b⌋
zeros and a one, filled up likewise. At b = 0 this is the bit mask itself and one more bit.

A code of n bytes is never that of more than 128·n weights, so that a hostile file cannot ask for much more memory than
it brings.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pals_core.errors import InvalidCheckpoint

MOST_LOW_BITS = 4
_OF_INACTIVE = 0x80
_BYTES_AT_ONCE = 2**14

Code: TypeAlias = npt.NDArray[np.uint8]
Mask: TypeAlias = npt.NDArray[np.bool_]


def encode_positions(mask: Mask) -> Code:
    """Return the shortest code of a mask, [N] or of any other shape."""
    flat = mask.reshape(-1)
    active = int(np.count_nonzero(flat))
    if active == flat.size:
        return np.empty(0, dtype=np.uint8)
    of_inactive = 2 * active > flat.size
    marked = ~flat if of_inactive else flat
    places = np.concatenate(([-1], np.flatnonzero(marked), [flat.size]))
    gaps = np.diff(places.astype(np.int32) if flat.size < 2**31 else places)
    gaps -= 1
    planes, unary_bits = _low_planes(gaps, flat.size)
    low_bits = len(planes)
    if low_bits:
        unary = np.zeros(unary_bits, dtype=np.bool_)
        unary[np.cumsum((gaps >> low_bits) + 1) - 1] = True
    else:
        unary = np.append(marked, True)
    first = np.array([low_bits | (_OF_INACTIVE if of_inactive else 0)], dtype=np.uint8)
    low = np.packbits(np.concatenate(planes), bitorder="little") if planes else np.empty(0, dtype=np.uint8)
    return np.concatenate((first, low, np.packbits(unary, bitorder="little")))


def _low_planes(gaps: npt.NDArray[np.signedinteger[Any]], weights: int) -> tuple[list[Mask], int]:
    """Return the bit planes of the shortest code, the fewest if there are several such, and the bits after them."""
    planes: list[Mask] = []
    rest = weights + 1 - len(gaps)  # Σ ⌊g_i / 2^b⌋, at first the sum of the gaps
    best, fewest, unary_bits = 0, _bytes(weights + 1), weights + 1
    for low_bits in range(1, MOST_LOW_BITS + 1):
        planes.append((gaps & (1 << (low_bits - 1))) != 0)
        rest = (rest - int(np.count_nonzero(planes[-1]))) // 2
        size = _bytes(len(gaps) * low_bits) + _bytes(len(gaps) + rest)
        # Every further plane spares less than the one before; two bytes aside, to which both streams are filled up.
        if size > fewest + 2:
            break
        if size < fewest:
            best, fewest, unary_bits = low_bits, size, len(gaps) + rest
    return planes[:best], unary_bits


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def decode_positions(code: Code, weights: int, active: int) -> Mask:
    """Return the mask, [weights], of a code that is to have `active` weights; raises InvalidCheckpoint otherwise."""
    if not len(code):
        if active != weights:
            raise InvalidCheckpoint(f"all {weights} weights are marked; other counts say {active}")
        return np.ones(weights, dtype=np.bool_)
    of_inactive, low_bits = bool(code[0] & _OF_INACTIVE), int(code[0]) & ~_OF_INACTIVE
    if low_bits > MOST_LOW_BITS:
        raise InvalidCheckpoint(f"the positions are in a code of {low_bits} low bits; at most {MOST_LOW_BITS} are read")
    gaps = (weights - active if of_inactive else active) + 1
    low, unary = np.split(code[1:], [_bytes(gaps * low_bits)])
    if low_bits == 0:
        return _bit_mask(np.unpackbits(unary, bitorder="little"), weights, gaps, of_inactive)
    if not gaps <= 8 * len(unary) < gaps + (weights >> low_bits) + 8 or weights >= 8 * len(unary) << low_bits:
        raise InvalidCheckpoint(f"{len(code)} bytes cannot mark {gaps - 1} of {weights} weights")
    planes = np.unpackbits(low, bitorder="little")
    if len(planes) < gaps * low_bits or planes[gaps * low_bits :].any():
        raise InvalidCheckpoint("the low bits of the positions do not fit their number")
    mask = np.full(weights + 1, of_inactive)
    found = low_sum = last_end = last_place = 0
    for start in range(0, len(unary), _BYTES_AT_ONCE):
        bits = np.unpackbits(unary[start : start + _BYTES_AT_ONCE], bitorder="little")
        if not len(ends := np.flatnonzero(bits) + 8 * start):  # e_i = Σ_{j ≤ i} ⌊g_j / 2^b⌋ + i, counted from 0
            continue
        before, found = found, found + len(ends)
        if found > gaps:
            break
        low_parts = np.zeros(len(ends), dtype=np.int64)
        for plane in range(low_bits):
            low_parts += planes[plane * gaps + before : plane * gaps + found].astype(np.int64) << plane
        order = np.arange(before, found)
        places = ((ends - order) << low_bits) + order + np.cumsum(low_parts) + low_sum
        low_sum, last_end, last_place = low_sum + int(low_parts.sum()), int(ends[-1]), int(places[-1])
        if last_place > weights:
            break
        mask[places] = not of_inactive
    if found != gaps or len(unary) != _bytes(last_end + 1):
        raise InvalidCheckpoint(_miscounted(max(found - 1, 0), gaps - 1))
    if last_place != weights:
        raise InvalidCheckpoint(f"the positions are those of {last_place} weights; there are {weights}")
    return mask[:-1]


def _bit_mask(bits: npt.NDArray[np.uint8], weights: int, gaps: int, of_inactive: bool) -> Mask:
    if len(bits) != 8 * _bytes(weights + 1):
        raise InvalidCheckpoint(f"the positions are {len(bits)} bits; {weights} weights need {weights + 1}")
    if not bits[weights] or bits[weights + 1 :].any():
        raise InvalidCheckpoint("the positions mark weights beyond the last one")
    mask = bits[:weights].view(np.bool_)
    if (marked := int(np.count_nonzero(mask))) != gaps - 1:
        raise InvalidCheckpoint(_miscounted(marked, gaps - 1))
    return ~mask if of_inactive else mask


def _miscounted(marked: int, said: int) -> str:
    return f"the positions mark {marked} weights; other counts say {said}"
