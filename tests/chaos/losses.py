"""Attempts that were lost, and whether a fault accounts for each: no other may cost a job anything."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from jobstore.events import EventType
from jobstore.lifecycle import LEASED_STATUSES
from jobstore.tables import Event, Job, Worker
from tests.chaos.cluster import LEASE_SECONDS, Cluster

# A lease that was about to be renewed has two thirds of its time left, of which a busy host may need the half.
LONG_SECONDS = LEASE_SECONDS / 3
DATABASE_BACK_SECONDS = 60.0
DATABASE_RETRY_SECONDS = 0.1


class MayLose(StrEnum):
    """Whose attempts a fault may cost."""

    NOBODY = "nobody"
    WHOM_IT_KILLED = "those of workers that it killed, or whose parent or training"
    ANYBODY = "anybody"
    ANYBODY_IF_LONG = "anybody, when it kept the database away for long"


@dataclass(frozen=True)
class Standing:
    """Where jobs and workers stand at one moment: the jobs' attempts, which of them are leased, workers by process."""

    attempts: dict[str, int]
    leased: frozenset[str]
    workers: dict[int, str]


@dataclass(frozen=True)
class Exposed:
    """The attempts that a fault may have cost: all `attempts` (of a job) under way, or those of `workers` alone."""

    attempts: tuple[tuple[str, int], ...] = ()
    workers: tuple[str, ...] | None = None

    def accounts_for(self, loss: Loss) -> bool:
        return (loss.job_id, loss.attempt) in self.attempts and (self.workers is None or loss.worker in self.workers)


@dataclass(frozen=True)
class Loss:
    """An attempt that counted as lost, and what the job's log says of it."""

    job_id: str
    attempt: int
    worker: str
    message: str


def standing(cluster: Cluster) -> Standing:
    """Where all stand now, or as soon as the database answers again. Raises DBAPIError when it does not."""
    deadline = time.monotonic() + DATABASE_BACK_SECONDS
    while True:
        try:
            with cluster.database.read() as session:
                jobs = session.execute(select(Job.id, Job.attempt, Job.status)).all()
                workers = session.execute(select(Worker.pid, Worker.id)).all()
            break
        except DBAPIError:
            if time.monotonic() > deadline:
                raise
            time.sleep(DATABASE_RETRY_SECONDS)
    return Standing(
        {job.id: job.attempt for job in jobs},
        frozenset(job.id for job in jobs if job.status in LEASED_STATUSES),
        {worker.pid: worker.id for worker in workers},
    )


def exposed(whose: MayLose, hit: bool | frozenset[int], seconds: float, before: Standing, after: Standing) -> Exposed:
    """What a fault between two moments may have cost, after which the database answered within `seconds`."""
    if whose is MayLose.NOBODY or (whose is MayLose.ANYBODY_IF_LONG and seconds < LONG_SECONDS):
        return Exposed()
    attempts = tuple(
        (job, attempt)
        for job, last in after.attempts.items()
        for attempt in range(before.attempts.get(job, 0) + (job not in before.leased), last + 1)
    )
    if not isinstance(hit, frozenset):
        return Exposed(attempts)
    workers = {**before.workers, **after.workers}
    return Exposed(attempts, tuple(workers[pid] for pid in sorted(hit & workers.keys())))


def losses_in(events: Iterable[Event]) -> Iterator[Loss]:
    """The losses that a job's log tells of; its row forgets them when a state is saved."""
    worker = ""
    for event in events:
        if event.type != EventType.STATE:
            continue
        if event.data["status"] == "running":
            worker = event.message.rpartition(" ")[2]
        elif "attempts lost)" in event.message or "max_attempts is" in event.message:
            yield Loss(event.job_id, event.attempt, worker, event.message)


def causeless(losses: Iterable[Loss], exposed: Sequence[Exposed]) -> Iterator[str]:
    """Say which losses none of the faults accounts for."""
    for loss in losses:
        if not any(each.accounts_for(loss) for each in exposed):
            yield f"loss without cause: attempt {loss.attempt} on {loss.worker}, {loss.message}"
