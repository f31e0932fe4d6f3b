from __future__ import annotations

import pytest

from api.ranges import ByteRange, RangeNotSatisfiable, names_entity, range_applies, requested_range

ETAG = '"abc"'


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=10-19", 10, 20),
        ("bytes=90-1000", 90, 100),
        ("bytes=99-", 99, 100),
        ("bytes=-1", 99, 100),
        ("bytes=-1000", 0, 100),
        ("BYTES = 5 - 6", 5, 7),
    ],
)
def test_one_range_is_taken(header: str, start: int, stop: int) -> None:
    assert requested_range(header, 100) == ByteRange(start, stop)


@pytest.mark.parametrize(
    "header",
    [
        None, "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-4", "items=0-5", "bytes=0-1,5-6", "bytes=--5",
        "bytes=0-5x", "bytes=\u0661-\u0662", f"bytes=0-{10**30}",
    ],
)  # fmt: skip
def test_anything_else_sends_everything(header: str | None) -> None:
    assert requested_range(header, 100) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=100-", 100), ("bytes=500-600", 100), ("bytes=-0", 100), ("bytes=0-", 0)]
)
def test_a_range_behind_the_end_cannot_be_satisfied(header: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiable):
        requested_range(header, size)


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (None, False),
        ("*", True),
        (ETAG, True),
        (f"W/{ETAG}", True),
        (f'"x", {ETAG}', True),
        ('"x"', False),
        ("abc", False),
    ],
)
def test_if_none_match_lists_entities(header: str | None, named: bool) -> None:
    assert names_entity(header, ETAG) is named


@pytest.mark.parametrize(
    ("header", "applies"),
    [(None, True), (ETAG, True), (f"W/{ETAG}", False), ('"x"', False), ("Wed, 21 Oct 2026 07:28:00 GMT", False)],
)
def test_if_range_needs_the_same_strong_entity(header: str | None, applies: bool) -> None:
    assert range_applies(header, ETAG) is applies
