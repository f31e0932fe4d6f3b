"""Everything wrong with a file is found, at its row and column, with a remedy."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pals_core.data.audit import audit_table, profile_of
from pals_core.data.profile import Finding, FindingCode, Layout, Severity
from pals_core.data.split import Part
from pals_core.data.table import Table, read_table
from pals_core.errors import InvalidTable

Write = Callable[..., Path]


def hourly(values: list[str], header: str = "date,a", start: str = "2024-01-01") -> str:
    times = pd.date_range(start, periods=len(values), freq="h").strftime("%Y-%m-%d %H:%M:%S")
    return "\n".join([header, *(f"{time},{value}" for time, value in zip(times, values, strict=True))]) + "\n"


def only_finding(path: Path) -> Finding:
    findings = audit_table(path).findings
    assert len(findings) == 1, findings
    assert findings[0].remedy
    return findings[0]


def test_a_clean_table_has_no_findings(write: Write) -> None:
    profile = audit_table(write("date,a,b\n2024-01-01,1,2.5\n2024-01-02,2,-1e3\n2024-01-03,4,0\n"))
    assert profile.findings == ()
    assert (profile.layout, profile.time_column, profile.columns) == (Layout.WIDE, "date", ("a", "b"))
    assert (profile.rows, profile.steps, profile.frequency) == (3, 3, "D")
    assert (str(profile.start), str(profile.end)) == ("2024-01-01 00:00:00", "2024-01-03 00:00:00")


# --- values ---------------------------------------------------------------------------------------


def test_the_first_cell_that_is_no_number_is_named_by_row_and_column(write: Write) -> None:
    finding = only_finding(write(hourly(["1", "2", "n/a?", "4", "x", "6"])))
    assert (finding.code, finding.severity) == (FindingCode.NON_NUMERIC_CELL, Severity.ERROR)
    assert (finding.row, finding.column, finding.count) == (4, "a", 2)
    assert "'n/a?'" in finding.message


def test_a_bad_cell_far_down_a_long_file_is_found(write: Write) -> None:
    values = [str(number % 97) for number in range(40_000)]
    values[33_333] = "oops"
    finding = only_finding(write(hourly(values)))
    assert (finding.code, finding.row) == (FindingCode.NON_NUMERIC_CELL, 33_335)


@pytest.mark.parametrize("cell", ["1,5", "1,234.5", "12 %", "€5"])
def test_numbers_with_units_or_commas_are_errors_rather_than_ignored_text(write: Write, cell: str) -> None:
    finding = only_finding(write(hourly([f'"{cell}"'] * 4)))
    assert (finding.code, finding.row, finding.count) == (FindingCode.NON_NUMERIC_CELL, 2, 4)


def test_a_column_of_text_is_ignored_with_a_warning(write: Write) -> None:
    profile = audit_table(write(hourly(["1,rain", "2,sun", "3,rain"], header="date,a,weather")))
    (finding,) = profile.findings
    assert (finding.code, finding.severity, finding.column) == (
        FindingCode.IGNORED_COLUMN,
        Severity.WARNING,
        "weather",
    )
    assert profile.columns == ("a",)


@pytest.mark.parametrize("cell", ["", "NA", "NaN", "null", "None", "n/a"])
def test_empty_cells_are_missing_values_that_a_policy_cures(write: Write, cell: str) -> None:
    finding = only_finding(write(hourly(["1", "2", cell, "4", cell, "5"])))
    assert (finding.code, finding.severity) == (FindingCode.MISSING_VALUES, Severity.ERROR)
    assert (finding.row, finding.column, finding.count) == (4, "a", 2)
    assert finding.cured_by_missing_policy


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e400"])
def test_infinite_values_are_errors(write: Write, cell: str) -> None:
    finding = only_finding(write(hourly(["1", cell, "3"])))
    assert (finding.code, finding.row, finding.cured_by_missing_policy) == (FindingCode.INFINITE_VALUE, 3, False)


def test_a_constant_column_is_a_warning(write: Write) -> None:
    finding = only_finding(write(hourly(["7", "7", "7"])))
    assert (finding.code, finding.severity) == (FindingCode.CONSTANT_COLUMN, Severity.WARNING)


def test_an_empty_column_is_an_error_no_policy_cures(write: Write) -> None:
    profile = audit_table(write(hourly(["1,", "2,", "3,"], header="date,a,b")))
    (finding,) = profile.findings
    assert (finding.code, finding.column, finding.cured_by_missing_policy) == (FindingCode.EMPTY_COLUMN, "b", False)
    assert profile.errors_for(("a",), missing_is_cured=True) == ()


def test_decimal_commas_are_read_between_semicolons_and_said(write: Write) -> None:
    path = write("date;a\n2024-01-01;1,5\n2024-01-02;2\n2024-01-03;-3,25\n")
    finding = only_finding(path)
    assert (finding.code, finding.severity) == (FindingCode.DECIMAL_COMMA, Severity.WARNING)
    np.testing.assert_array_equal(read_table(path).values[:, 0], [1.5, 2.0, -3.25])


def test_commas_that_could_separate_thousands_are_not_guessed(write: Write) -> None:
    finding = only_finding(write("date;a\n2024-01-01;1,500\n2024-01-02;2,000\n2024-01-03;3,250\n"))
    assert finding.code is FindingCode.NON_NUMERIC_CELL


# --- times ----------------------------------------------------------------------------------------


def test_missing_time_steps_are_counted_and_a_policy_cures_them(write: Write) -> None:
    text = "date,a\n2024-01-01,1\n2024-01-02,2\n2024-01-05,3\n2024-01-06,5\n"
    finding = only_finding(write(text))
    assert (finding.code, finding.row, finding.count) == (FindingCode.MISSING_TIMES, 4, 2)
    assert finding.cured_by_missing_policy
    assert audit_table(write(text)).steps == 6


def test_a_doubled_time_is_named_by_its_row(write: Write) -> None:
    finding = only_finding(write("date,a\n2024-01-01,1\n2024-01-02,2\n2024-01-02,3\n2024-01-03,4\n"))
    assert (finding.code, finding.row, finding.severity) == (FindingCode.DUPLICATE_TIME, 4, Severity.ERROR)


def test_an_unsorted_time_is_named_by_its_row(write: Write) -> None:
    finding = only_finding(write("date,a\n2024-01-01,1\n2024-01-03,2\n2024-01-02,3\n2024-01-04,4\n"))
    assert (finding.code, finding.row) == (FindingCode.UNSORTED_TIME, 4)


@pytest.mark.parametrize("cell", ["2024-13-01", "", "soon", "now", "02/01/2024"])
def test_a_cell_that_is_no_time_is_named_by_its_row(write: Write, cell: str) -> None:
    text = f"date,a\n2024-01-01,1\n{cell},2\n2024-01-03,3\n2024-01-04,4\n2024-01-05,6\n"
    finding = next(f for f in audit_table(write(text)).findings if f.code is FindingCode.INVALID_TIME)
    assert (finding.row, finding.count, finding.severity) == (3, 1, Severity.ERROR)


def test_irregular_times_have_no_frequency(write: Write) -> None:
    text = "date,a\n2024-01-01 00:00,1\n2024-01-01 01:00,2\n2024-01-01 02:00,3\n2024-01-01 03:17,4\n"
    finding = only_finding(write(text))
    assert (finding.code, finding.row) == (FindingCode.UNKNOWN_FREQUENCY, 5)
    assert audit_table(write(text)).frequency is None


def test_a_stray_time_far_away_does_not_fill_the_memory(write: Write) -> None:
    times = pd.date_range("2024-01-01", periods=50, freq="s").strftime("%Y-%m-%d %H:%M:%S")
    rows = [*(f"{time},{place}" for place, time in enumerate(times)), "2924-01-01 00:00:00,1"]
    finding = only_finding(write("date,a\n" + "\n".join(rows)))
    assert (finding.code, finding.row) == (FindingCode.UNKNOWN_FREQUENCY, 52)


@pytest.mark.parametrize(
    ("times", "first"),
    [
        (["2024-01-01T00:00Z", "2024-01-01T01:00Z", "2024-01-01T02:00Z"], "2024-01-01 00:00:00"),
        (["2024-01-01 00:00+02:00", "2024-01-01 01:00+02:00", "2024-01-01 02:00+02:00"], "2023-12-31 22:00:00"),
        (["2024-03-31 01:00+01:00", "2024-03-31 03:00+02:00", "2024-03-31 04:00+02:00"], "2024-03-31 00:00:00"),
    ],
)
def test_times_with_a_zone_are_converted_to_utc_and_said(write: Write, times: list[str], first: str) -> None:
    path = write("date,a\n" + "\n".join(f"{time},{place}" for place, time in enumerate(times)))
    finding = only_finding(path)
    assert (finding.code, finding.severity) == (FindingCode.TIMES_CONVERTED_TO_UTC, Severity.WARNING)
    table = read_table(path)
    assert (str(table.times[0]), table.frequency, table.times.tz) == (first, "h", None)


def test_zoned_and_zoneless_times_do_not_mix(write: Write) -> None:
    path = write("date,a\n2024-01-01T00:00Z,1\n2024-01-01T01:00,2\n2024-01-01T02:00Z,3\n2024-01-01T03:00Z,4\n")
    finding = next(f for f in audit_table(path).findings if f.code is FindingCode.INVALID_TIME)
    assert finding.row == 3
    assert "zone" in finding.message


@pytest.mark.parametrize(
    ("cells", "second"),
    [
        (["30/01/2024", "31/01/2024", "01/02/2024"], "2024-01-31"),
        (["01/30/2024", "01/31/2024", "02/01/2024"], "2024-01-31"),
        (["01.02.2024", "02.02.2024", "03.02.2024"], "2024-02-02"),
        (["2024/01/01", "2024/01/02", "2024/01/03"], "2024-01-02"),
        (["20240101", "20240102", "20240103"], "2024-01-02"),
        (["1 Jan 2024", "2 Jan 2024", "3 Jan 2024"], "2024-01-02"),
        (["30/01/2024 10:00", "31/01/2024 10:00", "01/02/2024 10:00"], "2024-01-31 10:00"),
        (["2024-01", "2024-02", "2024-03"], "2024-02-01"),
        (["2021", "2022", "2023"], "2022-01-01"),
    ],
)
def test_unambiguous_formats_are_read(write: Write, cells: list[str], second: str) -> None:
    table = read_table(write("date,a\n" + "\n".join(f"{cell},{place}" for place, cell in enumerate(cells))))
    assert table.times[1] == pd.Timestamp(second)


def test_days_that_could_be_months_are_not_guessed(write: Write) -> None:
    path = write("date,a\n01/02/2024,1\n02/02/2024,2\n03/02/2024,3\n")
    finding = only_finding(path)
    assert (finding.code, finding.row) == (FindingCode.INVALID_TIME, 2)
    assert "day first and month first" in finding.message
    with pytest.raises(InvalidTable, match="day first"):
        read_table(path)


@pytest.mark.parametrize("name", ["date", "DS", "Timestamp", "time", "DateTime"])
def test_the_time_column_is_known_by_its_name(write: Write, name: str) -> None:
    assert audit_table(write(f"a,{name}\n1,2024-01-01\n2,2024-01-02\n")).time_column == name


def test_else_the_first_column_that_reads_as_times_is_taken(write: Write) -> None:
    profile = audit_table(write("place,a,when\nx,1,2024-01-01\ny,2,2024-01-02\nz,3,2024-01-03\n"))
    assert (profile.time_column, profile.columns) == ("when", ("a",))


def test_a_nameless_index_may_be_the_time_but_never_a_series(write: Write) -> None:
    indexed = audit_table(write(",a\n2024-01-01,1\n2024-01-02,2\n"))
    assert (indexed.time_column, indexed.columns) == ("column 1", ("a",))
    numbered = audit_table(write(",date,a\n0,2024-01-01,1\n1,2024-01-02,2\n"))
    assert numbered.columns == ("a",)
    assert [finding.code for finding in numbered.findings] == [FindingCode.IGNORED_COLUMN]


# --- files ----------------------------------------------------------------------------------------

PLAIN = "date,a,b\n2024-01-01,1,2\n2024-01-02,2,4\n2024-01-03,3,6\n"
# Without the time of day: a test has the same name in every process.
ZIPPED = gzip.compress(PLAIN.encode(), mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", " , "),
        "\n" + PLAIN + "\n\n",
        PLAIN.rstrip("\n"),
        ZIPPED,
    ],
    ids=["plain", "bom", "crlf", "semicolon", "tab", "spaces", "blank lines", "no last newline", "gzip"],
)
def test_usual_ways_to_write_a_csv_are_read_alike(write: Write, content: str | bytes) -> None:
    for name in ("table.csv", "table.parquet", "table"):
        path = write(content, name)
        assert audit_table(path).findings == ()
        table = read_table(path)
        assert table.columns == ("a", "b")
        np.testing.assert_array_equal(table.values, [[1, 2], [2, 4], [3, 6]])


def test_rows_are_counted_as_an_editor_does_across_blank_lines(write: Write) -> None:
    finding = only_finding(write("\ndate,a\n2024-01-01,1\n\n2024-01-02,x\n2024-01-03,3\n2024-01-04,4\n"))
    assert finding.row == 5


@pytest.mark.parametrize("name", ["table.parquet", "table.csv"])
def test_parquet_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"a": [1.5, 2.5, np.nan]}, index=pd.date_range("2024-01-01", periods=3, name="date"))
    frame.to_parquet(tmp_path / name)
    profile = audit_table(tmp_path / name)
    assert (profile.time_column, profile.columns, profile.frequency) == ("date", ("a",), "D")
    assert [(finding.code, finding.row) for finding in profile.findings] == [(FindingCode.MISSING_VALUES, 4)]


def test_parquet_types_that_hold_no_numbers_are_ignored(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "when": pd.date_range("2024-01-01", periods=3, tz="Europe/Berlin"),
            "a": pd.array([1, None, 3], dtype="Int64"),
            "list": [[1], [2], [3]],
            "flag": [True, False, True],
        }
    )
    frame.to_parquet(tmp_path / "t")
    profile = audit_table(tmp_path / "t")
    assert profile.columns == ("a",)
    assert {finding.code for finding in profile.findings} == {
        FindingCode.TIME_ZONE_LEFT_OUT,
        FindingCode.IGNORED_COLUMN,
        FindingCode.MISSING_VALUES,
    }


@pytest.mark.parametrize(
    ("content", "message", "row"),
    [
        (b"", "empty", None),
        (b"\n \n", "empty", None),
        (b"date,a\n", "no rows", None),
        (b"date,a\n\n\n", "no rows", None),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary", None),
        (b"PK\x03\x04rest", "Excel or zip", None),
        ("date,a\n2024-01-01,1\n".encode("utf-16"), "UTF-16", None),
        (b"PAR1 and nothing else", "damaged", None),
        (b"\x1f\x8b\x08 broken", "damaged", None),
        (ZIPPED[:-12], "damaged", None),
        (gzip.compress(ZIPPED, mtime=0), "twice", None),
        ("date,température\n2024-01-01,1\n".encode("latin-1"), "not UTF-8", 1),
        ("date,a,b\n2024-01-01,1,x\n2024-01-02,2,é\n".encode("latin-1"), "row 3 is not UTF-8", 3),
        (b"2024-01-01,1\n2024-01-02,2\n", "name the columns", 1),
        (b"date\n2024-01-01\n", "single column", 1),
        (b"date,a,a\n2024-01-01,1,2\n", "two columns are called 'a'", 1),
        (b"date,a\n2024-01-01,1,5\n2024-01-02,2\n", "row 2 has 3 cells", 2),
        (b"date,a\n2024-01-01,1\n2024-01-02,2,5\n", "row 3 has 3 cells", 3),
        (b'date,a\n2024-01-01,"1\n2024-01-02,2\n', "not well-formed|cannot be read", None),
        (b"a,b\n1,2\n3,4\n", "no time column", 1),
        (b"date,a\nx,1\ny,2\n", "'x'", 2),
        (b"date,a\n2024-01-01,wet\n2024-01-02,dry\n", "no numeric column", None),
        (b"date," + b",".join(b"c%d" % c for c in range(2001)) + b"\n", "at most 2001", None),
    ],
)
def test_what_is_no_table_is_refused_with_a_reason(write: Write, content: bytes, message: str, row: int | None) -> None:
    path = write(content)
    with pytest.raises(InvalidTable, match=message) as refused:
        audit_table(path)
    (problem,) = refused.value.problems
    assert problem.row == row
    with pytest.raises(InvalidTable, match=message):
        read_table(path)


# --- long tables ----------------------------------------------------------------------------------


def long(*rows: str) -> str:
    return "unique_id,ds,y\n" + "\n".join(rows) + "\n"


def test_a_long_table_becomes_one_column_per_series(write: Write) -> None:
    path = write(long("NA,2024-01-01,1", "NA,2024-01-02,2", "b,2024-01-01,3", "b,2024-01-02,4"))
    profile = audit_table(path)
    assert profile.findings == ()
    assert (profile.layout, profile.columns, profile.rows, profile.steps) == (Layout.LONG, ("NA", "b"), 4, 2)
    np.testing.assert_array_equal(read_table(path).values, [[1, 3], [2, 4]])


def test_a_long_table_may_go_time_by_time(write: Write) -> None:
    path = write(long("a,2024-01-01,1", "7,2024-01-01,3", "a,2024-01-02,2", "7,2024-01-02,4"))
    assert audit_table(path).findings == ()
    np.testing.assert_array_equal(read_table(path, ["7"]).values, [[3], [4]])


def test_series_may_have_ranges_of_their_own(write: Write) -> None:
    path = write(
        long("a,2024-01-01,1", "a,2024-01-02,2", "b,2024-01-01,3", "b,2024-01-02,5", "c,2024-01-02,4", "c,2024-01-03,5")
    )
    finding = only_finding(path)
    assert (finding.severity, finding.code, finding.column, finding.count) == (
        Severity.WARNING,
        FindingCode.UNEQUAL_SERIES,
        None,
        1,
    )
    profile = audit_table(path)
    assert "1 of 3 series do not begin and end with 'a', the first of them 'c'" in finding.message
    assert profile.errors_for(("a", "c"), missing_is_cured=False) == ()
    assert [(span.start, span.steps) for span in profile.spans] == [(datetime(2024, 1, day), 2) for day in (1, 1, 2)]
    table = read_table(path)
    assert table.spans == (Part(0, 2), Part(0, 2), Part(1, 3))
    np.testing.assert_array_equal(table.values, [[1, 3, np.nan], [2, 5, 4], [np.nan, np.nan, 5]])
    assert profile_of(table).findings == (finding,)
    assert profile_of(table).spans == profile.spans
    equal = read_table(path, ["b", "a"])
    assert (equal.columns, equal.spans, len(equal.times)) == (("b", "a"), (Part(0, 2), Part(0, 2)), 2)


def test_a_series_off_the_grid_of_the_others_is_an_error_that_nothing_cures(write: Write) -> None:
    days = [f"{name},2024-01-{day:02},{day}" for name in "ab" for day in range(1, 9)]
    path = write(long(*days, "c,2024-01-01 12:00,4", "c,2024-01-02 12:00,5"))
    finding = only_finding(path)
    assert (finding.code, finding.column, finding.row) == (FindingCode.UNEQUAL_SERIES, "c", 18)
    assert finding.severity is Severity.ERROR
    with pytest.raises(InvalidTable, match="no D steps of those of the others"):
        read_table(path)
    assert read_table(path, ["a"]).values.shape == (8, 1)


def test_a_gap_in_a_series_among_others_is_its_own(write: Write) -> None:
    rows = [f"a,2024-01-{day:02},{day}" for day in range(1, 7)] + [f"b,2024-01-{day:02},1{day}" for day in (3, 4, 6, 7)]
    profile = audit_table(write(long(*rows)))
    assert [(finding.code, finding.column) for finding in profile.findings] == [
        (FindingCode.UNEQUAL_SERIES, None),
        (FindingCode.MISSING_TIMES, "b"),
    ]
    assert [span.steps for span in profile.spans] == [6, 5]
    assert profile.errors_for(("a",), missing_is_cured=False) == ()


def test_series_a_thousand_years_apart_make_no_table(write: Write) -> None:
    near = [f"{name},2024-01-01 00:00:{second:02},1" for name in "ab" for second in range(30)]
    path = write(long(*near, "c,1024-01-01 00:00:00,4", "c,1024-01-01 00:00:01,5"))
    finding = next(found for found in audit_table(path).findings if found.code is FindingCode.UNEQUAL_SERIES)
    assert finding.column == "c"
    assert "almost empty" in finding.message
    assert read_table(path, ["a", "b"]).values.shape == (30, 2)


@pytest.mark.parametrize(
    ("rows", "code", "row"),
    [
        (("a,2024-01-01,1", "a,2024-01-01,2", "b,2024-01-01,3"), FindingCode.DUPLICATE_TIME, 3),
        (("b,2024-01-01,3", "a,2024-01-02,1", "a,2024-01-01,2", "b,2024-01-02,4"), FindingCode.UNSORTED_TIME, 4),
        (("a,2024-01-01,1", "a,2024-01-02,x", "b,2024-01-01,3", "b,2024-01-02,4"), FindingCode.NON_NUMERIC_CELL, 3),
        (("a,2024-01-01,1", "a,2024-01-02,", "b,2024-01-01,3", "b,2024-01-02,4"), FindingCode.MISSING_VALUES, 3),
    ],
)
def test_findings_of_long_tables_name_the_series(
    write: Write, rows: tuple[str, ...], code: FindingCode, row: int
) -> None:
    finding = next(f for f in audit_table(write(long(*rows))).findings if f.code is code)
    assert (finding.column, finding.row) == ("a", row)


def test_a_row_without_a_series_is_refused(write: Write) -> None:
    with pytest.raises(InvalidTable, match="row 3 has no unique_id"):
        audit_table(write(long("a,2024-01-01,1", ",2024-01-02,1")))


# --- tables in memory -----------------------------------------------------------------------------


def test_a_table_in_memory_is_audited_alike(make_table: Callable[..., Table]) -> None:
    table = make_table(steps=30, columns=2)
    assert profile_of(table).findings == ()
    table.values[4, 1] = np.nan
    (finding,) = profile_of(table).findings
    assert (finding.code, finding.row, finding.column) == (FindingCode.MISSING_VALUES, 6, "c1")
