"""A worker within this process: its slots and signs of life when the host or the database has nothing left for it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel
from sqlalchemy import create_engine

from jobstore.database import Database
from jobstore.leases import Lease, claim_next
from jobstore.lifecycle import JobStatus, StatusReason
from jobstore.workers import alive, announce
from tests.eventually import eventually
from worker import run
from worker.child import TrainingProcess
from worker.clock import lease_time
from worker.protocol import Train
from worker.run import TrainingWorker

if TYPE_CHECKING:
    from tests.worker.conftest import Stack

PATIENCE = 90.0


@contextmanager
def working(stack: Stack, database: Database | None = None) -> Iterator[TrainingWorker]:
    """A worker that hears no bell: it trains when it is told to."""
    worker = TrainingWorker(stack.settings, database or stack.database)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


@contextmanager
def no_process_starts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(sys, "executable", "/nowhere/python")
        yield


def test_a_host_without_room_for_a_process_keeps_its_training_its_slot_and_its_queue(stack: Stack) -> None:
    dataset_id = stack.add_dataset()
    first, second = (stack.add_job(dataset_id, ring=False) for _ in range(2))
    with working(stack) as worker:
        with no_process_starts():
            worker.work()
            # The training was not disturbed by there being no next process; the next job was left to others.
            assert stack.job(first).status == JobStatus.SUCCEEDED
            assert (stack.job(second).status, stack.job(second).attempt) == (JobStatus.QUEUED, 0)
        worker.work()
    assert (stack.job(second).status, stack.job(second).attempt) == (JobStatus.SUCCEEDED, 1)


def test_a_claimed_job_that_no_process_can_be_started_for_is_queued_again_at_once(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = stack.add_job(stack.add_dataset(), ring=False, max_attempts=1)
    with working(stack) as worker, ExitStack() as broken:

        def claim(*arguments: Any, **options: Any) -> Lease | None:
            """Claim, and have the process that stands by die."""
            lease = claim_next(*arguments, **options)
            if lease is not None:
                [child] = worker._standby._idle.values()
                os.kill(child.pid, signal.SIGKILL)
                child._process.wait(30)
                broken.enter_context(no_process_starts())
            return lease

        monkeypatch.setattr(run, "claim_next", claim)
        worker.work()
        job = stack.job(job_id)
        assert (job.status, job.status_reason, job.attempt, job.losses) == (
            JobStatus.QUEUED,
            StatusReason.INTERNAL,
            1,
            0,
        )
        said = stack.events(job_id)[-1].message
        assert said == ("no training process could be started: No such file or directory; queued again, it starts over")
        broken.close()
        monkeypatch.setattr(run, "claim_next", claim_next)
        worker.work()
        assert (stack.job(job_id).status, stack.job(job_id).attempt) == (JobStatus.SUCCEEDED, 2)


def test_a_training_is_given_no_more_time_than_the_database_gave(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.add_job(stack.add_dataset(), ring=False)
    claimed: list[float] = []
    told: list[float] = []
    send = TrainingProcess.send

    def claim(*arguments: Any, **options: Any) -> Lease | None:
        claimed.append(lease_time())
        return claim_next(*arguments, **options)

    def listen(child: TrainingProcess, line: BaseModel) -> None:
        if isinstance(line, Train):
            told.append(line.lease_until)
        send(child, line)

    monkeypatch.setattr(run, "claim_next", claim)
    monkeypatch.setattr(TrainingProcess, "send", listen)
    with working(stack) as worker:
        worker.work()
    [until] = told
    assert until <= claimed[0] + stack.settings.lease_seconds


def test_a_worker_that_gets_no_connection_claims_nothing_and_its_signs_of_life_go_on(
    make_stack: Callable[..., Stack],
    fresh_postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stack = make_stack(PALS_DATABASE_URL=fresh_postgres_url)
    job_id = stack.add_job(stack.add_dataset(), ring=False)
    narrow = Database(create_engine(stack.database.engine.url, pool_size=1, max_overflow=0, pool_timeout=0.1))
    monkeypatch.setattr(run, "HEARTBEAT_SECONDS", 0.05)
    with narrow.engine.connect() as taken, working(stack, narrow) as worker:
        worker.work()
        assert stack.job(job_id).status == JobStatus.QUEUED
        assert "no job claimed: the database is away (TimeoutError)" in caplog.text
        failed = "no sign of life written: the database is away (TimeoutError)"
        eventually(lambda: failed in caplog.text, "the sign of life fails", PATIENCE)
        taken.close()
        eventually(lambda: seen(stack, worker), "the worker shows signs of life", PATIENCE)
    narrow.close()


def test_whatever_goes_wrong_with_a_sign_of_life_the_next_is_written(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [ValueError("nobody thought of this"), MemoryError()]

    def fail_at_first(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        announce(*arguments)

    monkeypatch.setattr(run, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(run, "announce", fail_at_first)
    with working(stack) as worker:
        eventually(lambda: seen(stack, worker), "the worker shows signs of life", PATIENCE)
    assert failures == []
    assert "ValueError: nobody thought of this" in caplog.text


def seen(stack: Stack, worker: TrainingWorker) -> bool:
    """Whether the worker is among the living."""
    with stack.database.read() as session:
        return worker.identity.id in {row.id for row in alive(session)}
