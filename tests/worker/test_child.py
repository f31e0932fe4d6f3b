"""A training process as its supervisor sees it."""

from __future__ import annotations

import os
import signal

from worker.child import TrainingProcess, _printable
from worker.protocol import EXIT_LEASE_ENDED, EXIT_ORPHANED, Train


def a_job(lease_seconds: float, folder: str) -> Train:
    return Train(
        spec={},
        table_path="nowhere",
        dataset_sha256="",
        output_dir=folder,
        resume_from=None,
        state_interval_seconds=60,
        micro_batches=1,
        threads=1,
        lease_seconds=lease_seconds,
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
    child.send(a_job(60, str(tmp_path)))
    assert child._process.wait(120) == 1
    assert "ValidationError" in child.errors
    child.kill()


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
