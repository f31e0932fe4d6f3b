"""Whatever is uploaded, the audit answers: with a profile, or with InvalidTable."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from pals_core.data.audit import audit_table
from pals_core.data.profile import Severity
from pals_core.data.table import read_table
from pals_core.errors import InvalidTable

TIMES = st.one_of(
    st.datetimes().map(str),
    st.integers(0, 400).map(lambda day: str(pd.Timestamp("2024-01-01") + pd.Timedelta(days=day))),
    st.sampled_from(["", "now", "2024", "2024-13-01", "01/02/2024", "2024-01-01T00:00Z", "9999-12-31", "0001-01-01"]),
)
CELLS = st.one_of(
    st.floats().map(str), st.integers().map(str), st.text(max_size=5), st.sampled_from(["", "NA", "1,5", '"', "1e999"])
)
NAMES = st.sampled_from(["date", "ds", "unique_id", "y", "a", "b", "", "Unnamed: 0", "2024-01-01", "é", "x y"])


@st.composite
def csv_text(draw: st.DrawFn) -> str:
    names = draw(st.lists(NAMES, min_size=1, max_size=5))
    kinds = [TIMES if name in ("date", "ds") else CELLS for name in names]
    rows = draw(st.lists(st.tuples(*kinds), max_size=12))
    separator = draw(st.sampled_from([",", ";", "\t"]))
    ending = draw(st.sampled_from(["\n", "\r\n"]))
    return ending.join([separator.join(names), *(separator.join(row) for row in rows)])


def answers(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        path.write_bytes(content)
        try:
            profile = audit_table(path)
        except InvalidTable as refused:
            assert refused.problems
            return
        fatal = [f for f in profile.findings if f.severity is Severity.ERROR and not f.cured_by_missing_policy]
        if fatal:
            with contextlib.suppress(InvalidTable):
                read_table(path)
                raise AssertionError(f"read in spite of {fatal}")
        else:
            table = read_table(path)
            assert (len(table.times), table.columns) == (profile.steps, profile.columns)


@given(st.binary(max_size=300))
def test_any_bytes_are_answered(content: bytes) -> None:
    answers(content)


@given(st.text(max_size=300))
def test_any_text_is_answered(content: str) -> None:
    answers(content.encode("utf-8", "surrogatepass"))


@given(csv_text())
def test_anything_like_a_csv_is_answered(content: str) -> None:
    answers(content.encode("utf-8", "surrogatepass"))


@given(st.sampled_from([b"PAR1", b"\x1f\x8b", b"PK\x03\x04"]), st.binary(max_size=200))
def test_false_signatures_are_answered(signature: bytes, rest: bytes) -> None:
    answers(signature + rest)
