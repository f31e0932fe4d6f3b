"""Tables: read, built from frames, cut down to columns."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pals_core.data.parquet_file import read_parquet_file
from pals_core.data.table import Table, read_table, table_of
from pals_core.errors import InvalidSpec, InvalidTable

Write = Callable[..., Path]


def test_missing_steps_and_cells_become_nan_on_a_complete_grid(write: Write) -> None:
    table = read_table(write("date,a,b\n2024-01-01,1,5\n2024-01-02,,6\n2024-01-04,4,8\n2024-01-05,5,9\n"))
    assert list(table.times) == list(pd.date_range("2024-01-01", periods=5))
    np.testing.assert_array_equal(table.values, [[1, 5], [np.nan, 6], [np.nan, np.nan], [4, 8], [5, 9]])


def test_every_problem_is_raised_with_its_place(write: Write) -> None:
    path = write("date,a,b\n2024-01-02,1,2\n2024-01-01,x,3\n2024-01-03,2,inf\n2024-01-04,3,4\n2024-01-05,4,5\n")
    with pytest.raises(InvalidTable) as refused:
        read_table(path)
    assert [(problem.row, problem.column) for problem in refused.value.problems] == [(3, None), (3, "a"), (4, "b")]


def test_problems_of_columns_left_out_do_not_count(write: Write) -> None:
    path = write("date,a,b\n2024-01-01,x,2\n2024-01-02,1,3\n2024-01-03,2,5\n")
    assert read_table(path, ["b"]).columns == ("b",)
    with pytest.raises(InvalidTable, match="'x' is not a number"):
        read_table(path, ["a"])


def test_columns_are_selected_in_the_order_asked_for(make_table: Callable[..., Table]) -> None:
    table = make_table(columns=3)
    chosen = table.select(("c2", "c0"))
    assert chosen.columns == ("c2", "c0")
    np.testing.assert_array_equal(chosen.values, table.values[:, [2, 0]])


def test_an_unknown_column_is_refused_with_a_pointer(make_table: Callable[..., Table]) -> None:
    with pytest.raises(InvalidSpec) as refused:
        make_table().select(("c0", "zero"))
    assert [problem.pointer for problem in refused.value.problems] == ["/data/targets/1"]


def test_values_must_fit_times_and_columns(make_table: Callable[..., Table]) -> None:
    table = make_table(steps=5, columns=2)
    with pytest.raises(InvalidTable, match="shape"):
        Table(table.times, table.values[:4], table.columns, "h")


HOURS = pd.date_range("2024-01-01", periods=5, freq="h")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": HOURS[::-1]}, "steps of h"),
        ({"times": HOURS[:4].append(HOURS[4:] + pd.Timedelta(hours=1))}, "steps of h"),
        ({"times": HOURS.tz_localize("Asia/Tokyo")}, "a time zone"),
        ({"frequency": "D"}, "steps of D"),
        ({"frequency": "soon"}, "steps of soon"),
        ({"columns": ("a", "a")}, "'a' is there twice"),
    ],
    ids=["backwards", "a gap", "a zone", "another frequency", "no frequency", "one name for two"],
)
def test_what_is_no_table_cannot_be_trained_on_when_made_by_hand(
    make_table: Callable[..., Table], change: dict[str, Any], message: str
) -> None:
    table = replace(make_table(steps=5, columns=2), times=HOURS)
    table.require_steps()
    with pytest.raises(InvalidTable, match=message):
        replace(table, **change).require_steps()


@pytest.mark.parametrize("index", [True, False])
def test_a_wide_frame_is_a_table(index: bool) -> None:
    times = pd.date_range("2024-01-01", periods=4, freq="15min")
    frame = pd.DataFrame({"a": [1, 2, 3, 4], 2: [0.5, 1.5, np.nan, 3.5]}, index=times)
    table = Table.from_frame(frame if index else frame.reset_index(names="when"))
    assert (table.columns, table.frequency) == (("a", "2"), "15min")
    np.testing.assert_array_equal(table.values, frame.to_numpy())
    assert list(frame.columns) == ["a", 2]


def test_a_long_frame_is_a_table() -> None:
    times = pd.date_range("2024-01-31", periods=3, freq="ME")
    frame = pd.DataFrame({"unique_id": ["x"] * 3 + ["y"] * 3, "ds": [*times, *times], "y": range(6)})
    table = Table.from_frame(frame)
    assert (table.columns, table.frequency) == (("x", "y"), "ME")
    np.testing.assert_array_equal(table.values, [[0, 3], [1, 4], [2, 5]])


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that cannot be read is there on Linux only")
def test_a_file_that_cannot_be_read_is_not_taken_for_a_bad_table() -> None:
    with pytest.raises(OSError, match="Input/output error") as failure:
        read_table(Path("/proc/self/mem"))  # its first bytes are no memory of anybody's
    assert failure.value.errno == errno.EIO


def test_a_parquet_file_that_the_system_does_not_give_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_parquet_file(tmp_path / "t.parquet")


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(InvalidTable, match="no rows"):
        Table.from_frame(pd.DataFrame({"date": [], "a": []}))


def test_csv_parquet_and_frame_give_the_same_table(tmp_path: Path, make_table: Callable[..., Table]) -> None:
    table = make_table(steps=50)
    frame = pd.DataFrame(table.values, columns=list(table.columns), index=table.times.rename("date"))
    frame.to_csv(tmp_path / "t.csv")
    frame.to_parquet(tmp_path / "t.parquet")
    for other in (read_table(tmp_path / "t.csv"), read_table(tmp_path / "t.parquet"), Table.from_frame(frame)):
        assert other.times.equals(table.times)
        assert (other.columns, other.frequency) == (table.columns, table.frequency)
        np.testing.assert_allclose(other.values, table.values, rtol=1e-15)


def test_series_called_alike_by_a_number_and_a_text_are_refused() -> None:
    times = pd.date_range("2024-01-01", periods=3)
    frame = pd.DataFrame({"unique_id": [1] * 3 + ["1"] * 3, "ds": [*times, *times], "y": range(6)})
    with pytest.raises(InvalidTable, match="two series are called '1'") as refused:
        Table.from_frame(frame)
    assert refused.value.problems[0].column == "unique_id"


def test_an_index_and_a_column_of_one_name_are_refused() -> None:
    frame = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=4), "a": [1.0, 2, 3, 5]})
    with pytest.raises(InvalidTable, match="both called 'date'"):
        Table.from_frame(frame.set_index("date", drop=False))
    assert Table.from_frame(frame.rename(columns={"date": "t", "a": "T"}).set_index("t")).columns == ("T",)


def test_an_index_without_a_name_gets_one_that_no_column_has() -> None:
    times = pd.date_range("2024-01-01", periods=4)
    table = Table.from_frame(pd.DataFrame({"Time": [1.0, 2, 3, 5]}, index=times))
    assert (table.columns, list(table.times)) == (("Time",), list(times))


def test_few_times_full_of_gaps_have_the_frequency_that_is_named() -> None:
    times = pd.date_range("2024-01-01", periods=12, freq="h")[[0, 2, 4, 6, 7, 9, 11]]
    frame = pd.DataFrame({"date": times, "a": np.arange(7.0)})
    with pytest.raises(InvalidTable, match="not regular"):
        Table.from_frame(frame)
    table = Table.from_frame(frame, frequencies=["D", "h"])
    assert (table.frequency, len(table.times)) == ("h", 12)
    assert Table.from_frame(frame.iloc[:1], frequencies=["h"]).frequency == "h"
    # One that the times tell by themselves counts.
    assert Table.from_frame(frame.iloc[:4], frequencies=["h"]).frequency == "2h"
    long = frame.rename(columns={"date": "ds", "a": "y"}).assign(unique_id="x")
    assert Table.from_frame(long, frequencies=["h"]).frequency == "h"


def test_a_table_keeps_what_was_read_otherwise_or_left_out() -> None:
    frame = pd.DataFrame(
        {"date": pd.date_range("2024-01-01", periods=4, tz="Europe/Berlin"), "a": [1.0, 2, 3, 5], "note": list("abcd")}
    )
    moved = frame.assign(date=frame.date.dt.tz_convert("Asia/Tokyo"))
    assert "converted to UTC" in Table.from_frame(moved).notes[0]
    zone, left_out = Table.from_frame(frame).notes
    assert "read as days, without the zone" in zone
    assert "'note' is left out" in left_out
    chosen = Table.from_frame(frame, ["a"])
    assert chosen.notes == (zone,)
    assert chosen.select(["a"]).notes == (zone,)


def test_what_many_columns_have_in_common_is_one_short_note(write: Write) -> None:
    names = [f"column {number} {'x' * 200}" for number in range(30)]
    texts = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=3), "a": [1.0, 2, 3]})
    (note,) = Table.from_frame(texts.assign(**dict.fromkeys(names, "text"))).notes
    assert note.startswith(f"column '{names[0]}' is left out")
    assert "column 1 " in note
    assert len(note) <= 1000

    wide = write("date;a;b;c\n2024-01-01;1,5;2,5;x\n2024-01-02;1,5;2,5;x\n2024-01-03;1,5;2,5;x\n")
    commas, left_out = read_table(wide).notes
    assert "'a' has decimal commas" in commas
    assert "; so have b;" in commas
    assert "'c' is left out" in left_out
    (of_b,) = read_table(wide, ["b"]).notes
    assert "'b' has decimal commas" in of_b


def test_the_commas_of_a_long_table_are_noted(write: Write) -> None:
    rows = [f"{name};2024-01-0{day};{day},5" for name in ("u", "v") for day in range(1, 5)]
    table = read_table(write("\n".join(["unique_id;ds;y", *rows])))
    assert table.values[0].tolist() == [1.5, 1.5]
    assert ["decimal commas" in note for note in table.notes] == [True]


@pytest.mark.parametrize("frequency", ["B", "D", "W-SUN", "MS"])
@pytest.mark.parametrize("written", [True, False])
def test_days_of_a_zone_stay_days_when_its_clocks_change(write: Write, frequency: str, written: bool) -> None:
    times = pd.date_range("2024-01-01", periods=90, freq=frequency, tz="America/New_York")
    frame = pd.DataFrame({"date": times, "a": np.arange(90.0)})
    table = read_table(write(frame.to_csv(index=False))) if written else Table.from_frame(frame)
    assert list(table.times) == list(times.tz_localize(None))
    assert table.frequency == frequency
    (note,) = table.notes
    assert "read as days, without the zone" in note


def test_an_index_of_times_is_the_clock_whatever_columns_are_called() -> None:
    times = pd.date_range("2024-01-01", periods=6, freq="h", name="delivery")
    columns = {"timestamp": times - pd.Timedelta("1D"), "time": times.hour, "a": np.arange(6.0)}
    frame = pd.DataFrame(columns, index=times)
    table = Table.from_frame(frame)
    assert (list(table.times), table.frequency, table.columns) == (list(times), "h", ("time", "a"))
    nameless = frame.rename_axis(None).assign(date=times.date)[["date", "a"]]
    assert list(Table.from_frame(nameless).times) == list(times)
    months = pd.DataFrame({"a": [1.0, 2, 3]}, index=pd.period_range("2024-01", periods=3, freq="M"))
    assert Table.from_frame(months).frequency == "MS"


def test_numbers_under_a_usual_name_are_a_series_where_another_column_holds_times(write: Write) -> None:
    table = read_table(write("Datum,time,a\n2024-01-01,13,1\n2024-01-02,14,2\n2024-01-03,15,3\n"))
    assert (table.columns, table.frequency) == (("time", "a"), "D")
    with pytest.raises(InvalidTable, match="column 'time' holds no times"):
        read_table(write("time,a\n13,1\n14,2\n15,3\n"))
    with pytest.raises(InvalidTable, match="column 'date' holds no times"):
        read_table(write("date,made,a\nweek 1,2024-01-01,1\nweek 2,2024-01-02,2\nweek 3,2024-01-03,3\n"))


@pytest.mark.parametrize("names", [("001", "002"), ("12E4", "13E4"), ("1.10", "1.2"), ("1", "01")])
def test_series_ids_stay_as_they_are_written(write: Write, names: tuple[str, str]) -> None:
    rows = [f"{name},2024-01-0{day},{day}" for name in names for day in range(1, 5)]
    assert read_table(write("unique_id,ds,y\n" + "\n".join(rows))).columns == names


def test_a_name_of_several_lines_costs_no_row(write: Write) -> None:
    path = write('\n"date","Load\n(kW)\nmean"\n2024-01-01,1\n2024-01-02,2\n2024-01-03,x\n2024-01-04,4\n')
    with pytest.raises(InvalidTable, match="row 7, column 'Load"):
        read_table(path)
    table = read_table(write(path.read_text().replace("x", "3")))
    assert table.values[:, 0].tolist() == [1, 2, 3, 4]


def test_rows_that_end_with_a_separator_more_than_the_header_are_named(write: Write) -> None:
    with pytest.raises(InvalidTable, match="row 2 ends with an empty cell more than the header has") as refused:
        read_table(write("date,a\n2024-01-01,1,\n2024-01-02,2,\n2024-01-03,3,\n"))
    assert refused.value.problems[0].row == 2


def test_a_minus_of_its_own_sign_is_a_minus(write: Write) -> None:
    table = read_table(write("date,a\n2024-01-01,\N{MINUS SIGN}1.5\n2024-01-02,2\n2024-01-03,\N{MINUS SIGN}3\n"))
    assert table.values[:, 0].tolist() == [-1.5, 2, -3]


@pytest.mark.parametrize(
    "form", ["%d.%m.%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%d/%m/%Y %H:%M:%S", "%d %b %Y %H:%M:%S", "%m/%d/%Y %I:%M %p"]
)
def test_times_of_day_with_and_without_seconds_are_read(write: Write, form: str) -> None:
    times = pd.date_range("2024-01-20", periods=30, freq="7h")
    path = write("date,a\n" + "".join(f"{time.strftime(form)},{place}\n" for place, time in enumerate(times)))
    assert list(read_table(path).times) == list(times)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidTable, match="is a folder"):
        read_table(tmp_path)
    for given, message in ((pd.Series([1.0, 2]), "not a Series; a Series becomes one by"), ({"a": [1]}, "not a dict")):
        with pytest.raises(InvalidTable, match=message):
            table_of(given, None)  # type: ignore[arg-type]
