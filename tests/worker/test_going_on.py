"""Trainings that are interrupted in real workers go on from their last state and end as if nothing had been."""

from __future__ import annotations

import resource
import signal
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from sqlalchemy import func, select

from jobstore.checkpoints import checkpoints_of
from jobstore.control import pause, resume, retry
from jobstore.events import EventType
from jobstore.lifecycle import JobStatus, StatusReason
from jobstore.metrics import read_series
from jobstore.storage import ArtifactFolder
from jobstore.tables import Artifact, Worker

if TYPE_CHECKING:
    from tests.worker.conftest import Stack

RECIPE = {"epochs": 300, "patience": 10_000}
ENDLESS = {"epochs": 10_000, "patience": 10_000}


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    """A stack whose trainings save their states often."""
    return make_stack(PALS_STATE_INTERVAL_SECONDS="0.1")


def record(stack: Stack, job_id: str) -> dict[str, Any]:
    """What is left of a training that must not depend on interruptions: bytes, series, decisions, result."""
    artifacts = ArtifactFolder(stack.settings.resolved_artifacts_url)
    with stack.database.read() as session:
        files = {}
        for checkpoint in checkpoints_of(session, job_id):
            name = (checkpoint.step, checkpoint.is_best, checkpoint.is_last)
            files[name] = artifacts.path(session.get_one(Artifact, checkpoint.artifact_id).key).read_bytes()
        series = {
            one.name: list(zip(one.steps, one.values, strict=True))
            for one in read_series(session, job_id, names=None, max_points=100_000)
        }
    told = [
        (event.type, event.data)
        for event in stack.events(job_id)
        if event.type in {EventType.MASK_UPDATE, EventType.EPOCH}
    ]
    return {"files": files, "series": series, "told": told, "result": stack.job(job_id).result}


def stop(stack: Stack, job_id: str) -> None:
    """Cancel a training, and find one loss of each of its steps."""
    stack.cancel(job_id)
    stack.wait_for_status(job_id, JobStatus.CANCELLED)
    steps = [step for step, _ in record(stack, job_id)["series"]["train_loss"]]
    assert steps == list(range(1, len(steps) + 1))


def warnings(stack: Stack, job_id: str) -> list[str]:
    return [event.message for event in stack.events(job_id) if event.level == "warning"]


def test_a_training_killed_again_and_again_ends_with_the_bytes_of_one_that_was_not(stack: Stack) -> None:
    worker = stack.start_worker()
    dataset_id = stack.add_dataset()
    unbroken = stack.add_job(dataset_id, training=RECIPE)
    first = stack.wait_for_status(unbroken, JobStatus.SUCCEEDED)
    assert (first.reproducible, first.resumed_from, stack.states(unbroken)) == (True, None, [])

    job_id = stack.add_job(dataset_id, training=RECIPE, max_attempts=2)
    steps = []
    for attempt in (1, 2, 3):
        steps.append(stack.wait_for_states(job_id, attempt))
        worker.training_child().send_signal(signal.SIGKILL)
    assert steps == sorted(set(steps))
    job = stack.wait_for_status(job_id, JobStatus.SUCCEEDED)
    assert (job.attempt, job.losses) == (4, 0)
    assert job.reproducible is True
    assert job.resumed_from is not None
    assert record(stack, job_id) == record(stack, unbroken)

    events = stack.events(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    announced = Counter(event.data["step"] for event in events if event.type == EventType.CHECKPOINT)
    assert job.result is not None
    again_with_test_errors = job.result["step"]
    assert {step for step, count in announced.items() if count > 1} <= {again_with_test_errors}
    assert stack.states(job_id) == []
    assert stack.in_scratch() == []


def test_a_torn_state_falls_back_to_the_one_before(stack: Stack) -> None:
    worker = stack.start_worker()
    job_id = stack.add_job(stack.add_dataset(), training=ENDLESS)
    stack.wait_for_states(job_id)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(30) == 0
    newest, before = stack.states(job_id)
    path = ArtifactFolder(stack.settings.resolved_artifacts_url).path(newest.key)
    path.write_bytes(path.read_bytes()[:1000])
    stack.start_worker()
    stack.wait_for_states(job_id, attempt=2)
    assert stack.job(job_id).resumed_from == {"job_id": job_id, "step": before.step}
    why = "its bytes are not those that were saved"
    assert warnings(stack, job_id) == [f"the state saved after step {newest.step} cannot be used: {why}"]
    stop(stack, job_id)


def test_without_any_whole_state_a_training_starts_over(stack: Stack) -> None:
    stack.start_worker()
    job_id = stack.add_job(stack.add_dataset(), training=ENDLESS)
    stack.wait_for_states(job_id)
    stack.workers[0].process.send_signal(signal.SIGTERM)
    assert stack.workers[0].process.wait(30) == 0
    for state in stack.states(job_id):
        ArtifactFolder(stack.settings.resolved_artifacts_url).path(state.key).unlink()
    stack.start_worker()
    stack.wait_for_states(job_id, attempt=2)
    assert stack.job(job_id).resumed_from is None
    assert [text.rpartition(": ")[2] for text in warnings(stack, job_id)] == ["its bytes are gone"] * 2
    stop(stack, job_id)


def test_a_killed_workers_job_goes_on_in_another_one(stack: Stack) -> None:
    first = stack.start_worker()
    job_id = stack.add_job(stack.add_dataset(), training=ENDLESS)
    stack.wait_for_states(job_id)
    children = first.children()
    first.process.kill()
    psutil.wait_procs(children, timeout=20)
    saved = stack.states(job_id)[0].step
    stack.start_worker()
    stack.wait_for_states(job_id, attempt=2)
    assert stack.job(job_id).resumed_from == {"job_id": job_id, "step": saved}
    stop(stack, job_id)


def test_a_drained_workers_job_goes_on_where_it_was_stopped(stack: Stack) -> None:
    worker = stack.start_worker()
    job_id = stack.add_job(stack.add_dataset(), training=ENDLESS, max_attempts=1)
    saved = stack.wait_for_states(job_id)
    children = worker.children()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(20) == 0
    assert not psutil.wait_procs(children, timeout=20)[1]
    with stack.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Worker)) == 0
    job = stack.job(job_id)
    assert (job.status, job.status_reason, job.losses) == (JobStatus.QUEUED, StatusReason.WORKER_DRAINING, 0)
    assert job.progress is not None
    stopped = stack.states(job_id)[0].step
    assert stopped == job.progress["step"] > saved
    assert stack.events(job_id)[-1].message == f"its worker is stopping; queued again, it goes on after step {stopped}"

    stack.start_worker()
    stack.wait_for_states(job_id, attempt=2)
    assert stack.job(job_id).resumed_from == {"job_id": job_id, "step": stopped}
    stop(stack, job_id)


def test_a_paused_training_frees_its_slot_and_goes_on_when_resumed(stack: Stack) -> None:
    worker = stack.start_worker()
    dataset_id = stack.add_dataset()
    job_id = stack.add_job(dataset_id, training=ENDLESS, max_attempts=1)
    saved = stack.wait_for_states(job_id)
    child = worker.training_child()
    stack.ask(pause, job_id)
    job = stack.wait_for_status(job_id, JobStatus.PAUSED)
    assert not psutil.wait_procs([child], timeout=20)[1]
    assert job.progress is not None
    paused = stack.states(job_id)[0].step
    assert paused == job.progress["step"] > saved
    stack.wait_for_status(stack.add_job(dataset_id), JobStatus.SUCCEEDED)

    stack.ask(resume, job_id)
    stack.wait_for_states(job_id, attempt=2)
    assert stack.job(job_id).resumed_from == {"job_id": job_id, "step": paused}
    stop(stack, job_id)


def test_a_cancelled_training_is_taken_up_by_its_retry(stack: Stack) -> None:
    stack.start_worker()
    job_id = stack.add_job(stack.add_dataset(), training=ENDLESS)
    stack.wait_for_states(job_id)
    stop(stack, job_id)
    newest = stack.states(job_id)[0].step
    again = stack.ask(retry, job_id).id  # upkeep rings for it
    stack.wait_for_states(again)
    assert stack.job(again).resumed_from == {"job_id": job_id, "step": newest}
    stop(stack, again)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="another process's limits can be set on Linux only")
def test_a_training_whose_disk_is_full_goes_on_when_there_is_room_again(stack: Stack) -> None:
    worker = stack.start_worker()
    job_id = stack.add_job(stack.add_dataset(), training=RECIPE)
    stack.wait_for_states(job_id, 1)
    limits = (64, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    resource.prlimit(worker.training_child().pid, resource.RLIMIT_FSIZE, limits)
    job = stack.wait_for_status(job_id, JobStatus.QUEUED)
    assert (job.losses, job.status_reason) == (0, StatusReason.STORAGE_UNAVAILABLE)
    stack.end_wait(job_id)
    job = stack.wait_for_status(job_id, JobStatus.SUCCEEDED)
    assert (job.attempt, job.reproducible) == (2, True)
    no_room = [
        event.message for event in stack.events(job_id) if "no room for the files of the training" in event.message
    ]
    assert len(no_room) == 1
    assert "queued again, the next try is at" in no_room[0]
