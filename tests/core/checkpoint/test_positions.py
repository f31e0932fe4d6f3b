from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pals_core.checkpoint.positions import decode_positions, encode_positions
from pals_core.errors import InvalidCheckpoint


def drawn(weights: int, density: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(weights) < density


@given(mask=arrays.arrays(np.bool_, st.integers(1, 300)))
def test_every_mask_comes_back(mask: np.ndarray) -> None:
    assert np.array_equal(decode_positions(encode_positions(mask), mask.size, int(mask.sum())), mask)


@given(weights=st.integers(1, 5000), density=st.floats(0, 1), seed=st.integers(0, 9))
def test_every_density_comes_back_in_a_bit_for_each_weight(weights: int, density: float, seed: int) -> None:
    mask = drawn(weights, density, seed)
    code = encode_positions(mask)
    assert np.array_equal(decode_positions(code, weights, int(mask.sum())), mask)
    assert len(code) <= 1 + -(-(weights + 1) // 8)
    assert len(code) * 128 >= weights or mask.all()


def test_the_axes_of_a_mask_are_read_row_by_row() -> None:
    mask = drawn(60, 0.3).reshape(3, 4, 5)
    assert np.array_equal(encode_positions(mask), encode_positions(mask.reshape(-1)))


@pytest.mark.parametrize("density", [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99])
def test_a_code_is_close_to_the_entropy_of_its_mask(density: float) -> None:
    mask = drawn(200_000, density)
    entropy = -density * np.log2(density) - (1 - density) * np.log2(1 - density)
    allowed = 1.05 if 0.05 <= density <= 0.95 else 1.4
    assert 8 * len(encode_positions(mask)) <= allowed * 200_000 * entropy


def test_codes_as_they_are_described() -> None:
    assert encode_positions(np.ones(9, dtype=bool)).tolist() == []
    assert encode_positions(np.array([1, 0, 1, 0, 0, 1, 0, 0], dtype=bool)).tolist() == [0, 0b00100101, 1]
    places = np.zeros(100, dtype=bool)
    places[[3, 40]] = True
    # Gaps 3, 36 and 59 with b = 4: remainders 3, 4 and 11 in four planes of three bits, quotients 0, 2 and 3.
    planes = "101 101 010 001".replace(" ", "")
    unary = "1" + "001" + "0001"
    assert encode_positions(places).tolist() == [4, *from_bits(planes), *from_bits(unary)]
    assert encode_positions(~places).tolist() == [0x84, *from_bits(planes), *from_bits(unary)]


def from_bits(bits: str) -> list[int]:
    """Bytes of bits that are written from the lowest on."""
    return [int(bits[first : first + 8][::-1], 2) for first in range(0, len(bits), 8)]


@pytest.mark.parametrize(
    ("code", "weights", "active", "message"),
    [
        pytest.param([], 8, 7, "all 8 weights", id="dense and yet not"),
        pytest.param([5, 0, 0, 1], 8, 1, "5 low bits", id="a larger parameter"),
        pytest.param([0], 8, 3, "0 bits", id="nothing"),
        pytest.param([0, 7], 8, 3, "8 bits", id="too short"),
        pytest.param([0, 7, 1, 0], 8, 3, "24 bits", id="too long"),
        pytest.param([0, 7, 0], 8, 3, "beyond", id="no end"),
        pytest.param([0, 7, 3], 8, 3, "beyond", id="a weight beyond the last"),
        pytest.param([0, 7, 1], 8, 4, "mark 3 weights", id="another count"),
        pytest.param([0x80, 7, 1], 8, 3, "mark 3 weights; other counts say 5", id="another count of the inactive"),
        pytest.param([4], 100, 2, "cannot mark 2 of 100", id="no gaps"),
        pytest.param([4, 0x1D], 100, 2, "low bits|cannot mark", id="planes cut short"),
        pytest.param([4, 0xFF, 0xFF, 0b11], 100, 2, "low bits", id="a gap too few"),
        pytest.param([4, 0, 0, 0b111], 100, 2, "those of 2 weights", id="too few weights"),
        pytest.param([4, 0, 0, 0, 0, 0, 0b111], 100, 2, "7 bytes cannot mark 2 of 100 weights", id="too many weights"),
        pytest.param([4, 0, 0xF0, 0b111], 100, 2, "low bits", id="spare bits of the planes"),
        pytest.param([4, 0, 0, 0b111, 0], 100, 2, "mark", id="bytes after the end"),
        pytest.param([1, 0xFF, 0xFF], 2**40, 2**40, "mark", id="petabytes"),
        pytest.param([0x81, 0xFF, 0xFF], 2**62, 2**62, "mark", id="more than the memory has addresses for"),
    ],
)
def test_a_code_that_is_wrong_is_refused(code: list[int], weights: int, active: int, message: str) -> None:
    with pytest.raises(InvalidCheckpoint, match=message):
        decode_positions(np.array(code, dtype=np.uint8), weights, active)


@given(code=st.binary(max_size=40), weights=st.integers(1, 400), share=st.floats(0, 1))
def test_any_bytes_are_a_mask_of_these_counts_or_refused(code: bytes, weights: int, share: float) -> None:
    active = round(share * weights)
    try:
        mask = decode_positions(np.frombuffer(code, dtype=np.uint8), weights, active)
    except InvalidCheckpoint:
        return
    assert (mask.size, int(mask.sum())) == (weights, active)
