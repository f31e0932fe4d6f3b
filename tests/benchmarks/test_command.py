from __future__ import annotations

import argparse

import pytest

from benchmarks.command import Refused, at_least, run_command
from pals_core.errors import InvalidSpec, Problem


def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (Refused("no such grid"), "no such grid\n", 2),
        (FileNotFoundError(2, "No such file", "/nope/x.csv"), "[Errno 2] No such file: '/nope/x.csv'\n", 2),
        (InvalidSpec("all", (Problem("is 0", "/a"), Problem("is 1", "/b"))), "/a: is 0\n/b: is 1\n", 2),
        (KeyboardInterrupt(), "Interrupted. Run it again.\n", 130),
    ],
    ids=["refused", "file", "spec", "interrupted"],
)
def test_what_is_wrong_is_told_in_a_line(
    error: BaseException, said: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        run_command(lambda: raising(error), when_interrupted="Run it again.")
    assert (left.value.code, capsys.readouterr().err) == (code, said)


def test_a_mistake_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: raising(ZeroDivisionError()))


@pytest.mark.parametrize(("text", "why"), [("0", "must be at least 1"), ("-3", "must be at least 1"), ("x", "invalid")])
def test_numbers_that_make_no_sense_are_refused(text: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stops", type=at_least(1))
    assert parser.parse_args(["--stops", "7"]).stops == 7
    with pytest.raises(SystemExit):
        parser.parse_args(["--stops", text])
    assert why in capsys.readouterr().err
