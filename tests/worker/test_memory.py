from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from worker import memory
from worker.memory import MIB, MemoryWatch, group_memory, smaller_limit

# A process of a group of its own, whose child has 64 MiB more; in its name are brackets.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "b = bytes(1) * 2**26; print('ready', flush=True); input()"])
child.wait()
"""


@pytest.fixture
def group() -> Iterator[int]:
    """A process group with a child that has allocated 64 MiB."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"ready\n"
    yield process.pid
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()


def resident(group: int) -> int:
    parent = psutil.Process(group)
    return sum(process.memory_info().rss for process in (parent, *parent.children()))


def test_a_group_has_the_memory_of_all_its_processes(group: int) -> None:
    assert group_memory(group) == pytest.approx(resident(group), rel=0.02)
    assert group_memory(group) > 64 * MIB


def test_where_there_is_no_proc_ps_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ps = tmp_path / "ps"
    ps.write_text("#!/bin/sh\nprintf '    1   900\\n  517    30\\n   51    11\\n  517     4\\n'\n")
    ps.chmod(0o700)
    monkeypatch.setattr(memory, "PROC", tmp_path)
    monkeypatch.setattr(memory, "PS", str(ps))
    assert group_memory(517) == 34 * 1024


def test_a_group_that_has_ended_has_none() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    process.wait()
    assert group_memory(process.pid) == 0


def test_more_than_the_limit_is_said_with_both_figures(group: int) -> None:
    excess = MemoryWatch(group, 20 * MIB).excess()
    assert excess is not None
    assert (excess.code, excess.param) == ("out_of_memory", "/limits/max_memory_bytes")
    assert "may take 20;" in excess.message
    assert MemoryWatch(group, 8192 * MIB).excess() is None


def test_without_a_limit_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "group_memory", lambda group: pytest.fail("somebody looked"))
    assert MemoryWatch(1, None).excess() is None


def test_it_looks_not_more_often_than_is_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr(memory, "group_memory", lambda group: looked.append(group) or 0)
    watch = MemoryWatch(7, MIB)
    monkeypatch.setattr(memory.time, "monotonic", lambda: 100.0)
    assert watch.excess() is None
    assert watch.excess() is None
    monkeypatch.setattr(memory.time, "monotonic", lambda: 100.0 + memory.LOOK_SECONDS)
    assert watch.excess() is None
    assert looked == [7, 7]


@pytest.mark.parametrize(
    ("job", "worker", "limit"), [(None, None, None), (5, None, 5), (None, 7, 7), (5, 7, 5), (9, 7, 7)]
)
def test_the_smaller_limit_holds(job: int | None, worker: int | None, limit: int | None) -> None:
    assert smaller_limit(job, worker) == limit


def test_a_training_offers_itself_to_the_killer_of_a_system_that_has_one() -> None:
    program = (
        "from worker.memory import be_killed_first; be_killed_first(); print(open('/proc/self/oom_score_adj').read())"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == ("500" if sys.platform == "linux" else "False")


@pytest.mark.parametrize(
    ("code", "before", "after", "blamed"),
    [
        (-signal.SIGKILL, 3, 4, True),
        (-signal.SIGKILL, 3, 3, False),
        (-signal.SIGTERM, 3, 4, False),
        (0, 3, 4, False),
        (-signal.SIGKILL, None, None, False),
        (-signal.SIGKILL, 3, None, False),
    ],
)
def test_a_kill_is_put_down_to_memory_where_the_system_has_counted_one(
    code: int, before: int | None, after: int | None, blamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "oom_kills", lambda: before)
    watch = MemoryWatch(7, None)
    monkeypatch.setattr(memory, "oom_kills", lambda: after)
    failed = watch.killed(code)
    assert (failed is not None) is blamed
    assert failed is None or (failed.code, failed.param) == ("out_of_memory", None)
