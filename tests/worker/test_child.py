"""A training process as its supervisor sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from worker.child import CannotStart, TrainingProcess, _printable
from worker.clock import lease_time
from worker.protocol import EXIT_LEASE_ENDED, EXIT_ORPHANED, LeaseRenewed, Train

if TYPE_CHECKING:
    from tests.core.training.small_training import MakeSpec


def a_job(lease_until: float, folder: str, *, spec: dict[str, Any] | None = None, table: str = "nowhere") -> Train:
    return Train(
        spec=spec or {},
        table_path=table,
        dataset_sha256="",
        output_dir=folder,
        resume_from=None,
        state_interval_seconds=60,
        micro_batches=1,
        threads=1,
        lease_until=lease_until,
    )


def test_a_waiting_child_has_torch_and_ends_quietly_with_its_supervisor() -> None:
    child = TrainingProcess()
    assert child.ready.wait(120)
    assert child.devices is not None
    assert child.devices.torch
    assert child._process.stdin is not None
    child._process.stdin.close()
    assert child._process.wait(30) == EXIT_ORPHANED
    assert child.errors == ""
    child.kill()


def test_a_child_whose_supervisor_is_gone_ends_while_it_still_imports() -> None:
    child = TrainingProcess()
    assert child._process.stdin is not None
    child._process.stdin.close()
    assert child._process.wait(30) == EXIT_ORPHANED
    assert child.devices is None
    child.kill()


def test_a_child_whose_spec_is_wrong_exits_with_a_trace(tmp_path: object) -> None:
    child = TrainingProcess()
    child.send(a_job(lease_time() + 60, str(tmp_path)))
    assert child._process.wait(120) == 1
    assert "ValidationError" in child.errors
    child.kill()


def test_a_lease_that_ended_while_its_line_was_on_the_way_is_not_counted_anew(
    tmp_path: Path, make_spec: MakeSpec
) -> None:
    table = tmp_path / "table"
    os.mkfifo(table)  # nobody writes to it: the training waits for its table
    job = a_job(lease_time() + 3600, str(tmp_path), spec=make_spec().model_dump(mode="json"), table=str(table))
    child = TrainingProcess()
    try:
        child.send(job)
        child.send(LeaseRenewed(until=lease_time() - 1))
        assert child._process.wait(120) == EXIT_LEASE_ENDED
    finally:
        child.kill()


def test_a_child_that_was_long_importing_counts_the_renewals_meanwhile(tmp_path: Path, make_spec: MakeSpec) -> None:
    table = tmp_path / "table"
    os.mkfifo(table)
    job = a_job(lease_time() - 1, str(tmp_path), spec=make_spec().model_dump(mode="json"), table=str(table))
    child = TrainingProcess()
    try:
        child.send(job)
        child.send(LeaseRenewed(until=lease_time() + 3600))
        assert child.ready.wait(120)
        with pytest.raises(subprocess.TimeoutExpired):
            child._process.wait(2)
    finally:
        child.kill()


def test_all_processes_of_a_machine_read_the_same_lease_time() -> None:
    before = lease_time()
    program = "from worker.clock import lease_time; print(lease_time())"
    there = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert before < float(there) < lease_time()


def test_a_child_that_the_system_refuses_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(CannotStart, match="No such file or directory"):
        TrainingProcess()


def test_a_child_that_no_thread_would_hear_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def refuse_the_second(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    before = {*psutil.Process().children()}
    monkeypatch.setattr(threading.Thread, "start", refuse_the_second)
    with pytest.raises(CannotStart, match="can't start new thread"):
        TrainingProcess()
    assert {*psutil.Process().children()} == before
    assert not started[0].is_alive()


def test_a_killed_child_is_told_by_its_signal() -> None:
    child = TrainingProcess()
    os.kill(child.pid, signal.SIGKILL)
    child._process.wait(30)
    assert child.returncode == -signal.SIGKILL
    child.kill()


def test_the_ways_in_which_a_child_stops_itself_differ() -> None:
    assert len({EXIT_LEASE_ENDED, EXIT_ORPHANED, 0, 1}) == 4


def test_what_no_database_keeps_is_replaced() -> None:
    assert _printable(b"a\0b\xff") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
