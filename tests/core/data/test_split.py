"""The split is chronological, complete and without overlap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pals_core.data.split import Part, split_rows, window_count
from pals_core.errors import InvalidSpec
from pals_core.spec import Split

SHARES = st.tuples(st.floats(0.05, 0.9), st.floats(0.05, 0.9), st.floats(0.05, 0.9)).map(
    lambda parts: Split(
        **dict(zip(("train", "validation", "test"), (part / sum(parts) for part in parts), strict=True))
    )
)


def test_shares_are_the_published_ones() -> None:
    parts = split_rows(966, Split())
    assert (parts.train.rows, parts.validation.rows, parts.test.rows) == (676, 97, 193)


def test_row_counts_leave_the_rest_unused() -> None:
    parts = split_rows(17_420, Split(train=8640, validation=2880, test=2880))
    assert (parts.train, parts.validation, parts.test) == (Part(0, 8640), Part(8640, 11_520), Part(11_520, 14_400))


def test_more_rows_than_there_are_is_refused() -> None:
    with pytest.raises(InvalidSpec) as refused:
        split_rows(99, Split(train=70, validation=10, test=20))
    assert refused.value.problems[0].pointer == "/data/split"


@given(st.integers(0, 100_000), SHARES)
def test_shares_cover_every_row_once_in_order(steps: int, split: Split) -> None:
    parts = split_rows(steps, split)
    assert parts.train.start == 0
    assert parts.train.stop == parts.validation.start <= parts.validation.stop == parts.test.start
    assert parts.test.stop == steps
    assert (parts.train.rows, parts.test.rows) == (int(steps * split.train), int(steps * split.test))


@given(st.integers(0, 500), st.integers(0, 500), st.integers(2, 60), st.integers(1, 60))
def test_the_windows_of_a_part_forecast_exactly_its_rows(start: int, rows: int, input_len: int, horizon: int) -> None:
    part = Part(start, start + rows)
    reached = part.reaching_back(input_len)
    assert reached.start == max(0, start - input_len)
    count = window_count(part, input_len, horizon)
    placed = [
        first
        for first in range(reached.start, reached.stop)
        if first + input_len >= part.start and first + input_len + horizon <= part.stop
    ]
    assert count == len(placed)
