"""The library page's programs, run as they are printed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pals_core.errors
from pals_core.errors import PalsError
from pals_core.training.events import TrainingEvent
from tests.docs.test_docs import ROOT, page, rows

PAGE = page("docs/library.md")


def programs() -> list[str]:
    return re.findall(r"^```python\n(.+?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_a_forecaster_takes_at_most_ten_lines() -> None:
    assert len([line for line in programs()[0].splitlines() if line]) <= 10


def test_the_programs_work_as_printed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    marked = "print('--- next')\n".join(programs())

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", marked],
        cwd=tmp_path,
        # Threads would spin against whatever else runs on this machine.
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    said = [part.strip() for part in done.stdout.split("--- next")]
    first, events, iterated, resumed, planned, methods, forecasts, fast, header, refused = said
    assert re.match(r"test MSE \d+\.\d+ at sparsity 0\.[2-9]\d\n", first)
    assert "co2" in first
    assert "step 12: shrink" in events
    assert "epoch 3: validation loss" in events
    assert re.fullmatch(r"S = 0\.1\d after \d+ steps", iterated)
    assert resumed == "the same bytes: True"
    assert re.fullmatch(r"[1-9]\d* updates in \d+ steps, up to about S = 0\.\d\d", planned)
    dense, pals, gmp = (
        re.search(r"MSE .*, (\d+) of (\d+) weights", line).groups()  # type: ignore[union-attr]
        for line in methods.splitlines()
    )
    assert dense[0] == dense[1]
    assert int(pals[0]) < int(pals[1])
    assert 2 * int(gmp[0]) == int(gmp[1])
    assert forecasts.splitlines()[1] == "(26, 5)"  # two intervals of a lower and an upper bound
    assert re.match(r"[1-9]\d*\.\d times as fast\n", fast)
    assert header.splitlines()[0].startswith("nstransformer ('co2',) W-SAT epoch ")
    assert "'/data/horizon'" in refused


def test_every_event_is_listed_and_no_other() -> None:
    union, _ = get_args(TrainingEvent)
    types = {f"`{event.model_fields['type'].default}`" for event in get_args(union)}

    assert {row[0] for row in rows(PAGE, "`type`")} == types


def test_every_error_is_listed_and_no_other() -> None:
    raised = {
        f"`{name}`"
        for name, value in vars(pals_core.errors).items()
        if isinstance(value, type) and issubclass(value, PalsError) and value is not PalsError
    }

    assert {row[0] for row in rows(PAGE, "error")} == raised
