"""Faults befall a service that is in use; then every job must have ended as its user wanted, with the right bytes."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from jobstore.lifecycle import JobStatus
from jobstore.tables import Job
from tests.chaos.cluster import Cluster
from tests.chaos.faults import Fault
from tests.chaos.load import KINDS, Posted, Users
from tests.chaos.verdict import best_sha256, wrong_with, wrong_with_store
from tests.chaos.watcher import Watcher
from tests.eventually import eventually

# The longest fault, then lease, grace and a new process for every job in turn.
SETTLE_SECONDS = 600.0


@dataclass
class Struck:
    """A fault that hit, and the jobs that were being trained when it did."""

    fault: str
    at: float
    seconds: float
    in_training: tuple[str, ...]


@dataclass
class Report:
    """What was done and what came of it; `wrong` says, by job, what is wrong with it."""

    stack: str
    seed: int
    seconds: float = 0.0
    struck: list[Struck] = field(default_factory=list)
    jobs: dict[str, str] = field(default_factory=dict)
    attempts: int = 0
    wrong: dict[str, list[str]] = field(default_factory=dict)
    doubles: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    store: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not (self.wrong or self.doubles or self.orphans or self.store)

    @property
    def ends(self) -> Counter[str]:
        return Counter(self.jobs.values())


def references(users: Users) -> dict[str, str]:
    """The digest of each kind's checkpoint when nothing disturbs its training."""
    found = {}
    for number, kind in enumerate(KINDS):
        job_id = users.post(-1 - number, kind)
        eventually(lambda job_id=job_id: users.status(job_id) is JobStatus.SUCCEEDED, f"{kind} succeeds", 120)
        found[kind] = best_sha256(users.cluster, job_id)
    return found


def run(
    cluster: Cluster,
    faults: Sequence[Fault],
    *,
    jobs: int,
    seed: int,
    pause_seconds: tuple[float, float],
    say: Callable[[str], None] = print,
) -> Report:
    """Let the faults befall the service in turn while `jobs` are posted and trained; stops the cluster at the end."""
    luck = random.Random(seed)
    report = Report(cluster.name, seed)
    began = time.monotonic()
    users = Users(cluster, jobs, seed)
    users.upload()
    expected = references(users)
    with Watcher(cluster) as watcher:
        with users:
            for number, fault in enumerate(faults, 1):
                time.sleep(luck.uniform(*pause_seconds))
                if users.failure is not None:
                    raise users.failure
                struck = _strike(cluster, fault, luck, began)
                if struck is not None:
                    report.struck.append(struck)
                say(f"{number}/{len(faults)} {fault.name}{'' if struck else ': nothing to hit'}")
                time.sleep(luck.uniform(0, 1))
                cluster.start_what_died()
            _settle(cluster, users, say)
        cluster.stop()
        report.orphans = [_described(process) for process in watcher.alive()]
        report.doubles = watcher.doubles
    for posted in users.jobs:
        _judge(cluster, posted, expected[posted.kind], report)
    report.store = list(wrong_with_store(cluster))
    report.seconds = time.monotonic() - began
    return report


def _strike(cluster: Cluster, fault: Fault, luck: random.Random, began: float) -> Struck | None:
    in_training = tuple(cluster.trainings().values())
    at = time.monotonic()
    if not fault.strike(cluster, luck):
        return None
    return Struck(fault.name, at - began, time.monotonic() - at, in_training)


def _settle(cluster: Cluster, users: Users, say: Callable[[str], None]) -> None:
    """Wait until all jobs are posted and have ended; what has not by then is stuck, and the report says so."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        cluster.start_what_died()
        if users.failure is not None:
            raise users.failure
        left = len(users.unfinished())
        if users.done and not left:
            return
        say(f"{len(users.jobs)} jobs posted, {left} not ended")
        time.sleep(2)


def _judge(cluster: Cluster, posted: Posted, reference: str, report: Report) -> None:
    if wrong := list(wrong_with(cluster, posted, reference)):
        report.wrong[posted.id] = wrong
    with cluster.database.read() as session:
        job = session.get(Job, posted.id)
    report.jobs[posted.id] = job.status if job else "lost"
    report.attempts += job.attempt if job else 0


def _described(process: psutil.Process) -> str:
    return f"{process.pid} {' '.join(process.cmdline())}"
