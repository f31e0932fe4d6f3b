"""Faults befall a service that is in use; then every job must have ended as its user wanted, with the right bytes."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from jobstore.events import events_after
from jobstore.lifecycle import JobStatus
from jobstore.tables import Job
from tests.chaos.cluster import Cluster
from tests.chaos.faults import Fault
from tests.chaos.load import KINDS, Posted, Users
from tests.chaos.losses import Exposed, Loss, causeless, exposed, losses_in, standing
from tests.chaos.record import ALL, Record, record_of
from tests.chaos.verdict import wrong_with, wrong_with_store
from tests.chaos.watcher import Watcher
from tests.eventually import eventually

# The longest fault, then lease, grace and a new process for every job in turn.
SETTLE_SECONDS = 600.0
# For a training to begin that can be killed, or a wake-up to wait that can be lost.
FIND_SECONDS = 5.0
FIND_AGAIN_SECONDS = 0.05
# What a fault held up is then through.
AFTERMATH_SECONDS = 0.3


@dataclass
class Struck:
    """A fault that hit, and the jobs that were being trained when it did."""

    fault: str
    at: float
    seconds: float
    in_training: tuple[str, ...]
    exposed: Exposed


@dataclass
class Report:
    """What was done and what came of it; `wrong` says, by job, what is wrong with it."""

    stack: str
    seed: int
    seconds: float = 0.0
    struck: list[Struck] = field(default_factory=list)
    jobs: dict[str, str] = field(default_factory=dict)
    attempts: int = 0
    losses: list[Loss] = field(default_factory=list)
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


def references(users: Users) -> dict[str, Record]:
    """The record of each kind when nothing disturbs its training."""
    found = {}
    for number, kind in enumerate(KINDS):
        job_id = users.post(-1 - number, kind)
        eventually(lambda job_id=job_id: users.status(job_id) is JobStatus.SUCCEEDED, f"{kind} succeeds", 120)
        found[kind] = record_of(users.cluster, job_id)
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
    deadline = time.monotonic() + FIND_SECONDS
    while time.monotonic() < deadline:
        before = standing(cluster)
        in_training = tuple(cluster.trainings().values())
        at = time.monotonic()
        if hit := fault.strike(cluster, luck):
            seconds = time.monotonic() - at
            standing(cluster)
            answered = time.monotonic() - at
            time.sleep(AFTERMATH_SECONDS)
            may_have_cost = exposed(fault.may_lose, hit, answered, before, standing(cluster))
            return Struck(fault.name, at - began, seconds, in_training, may_have_cost)
        time.sleep(FIND_AGAIN_SECONDS)
    return None


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


def _judge(cluster: Cluster, posted: Posted, reference: Record, report: Report) -> None:
    wrong = list(wrong_with(cluster, posted, reference))
    with cluster.database.read() as session:
        job = session.get(Job, posted.id)
        losses = list(losses_in(events_after(session, posted.id, 0, ALL)))
    report.losses += losses
    wrong += causeless(losses, [struck.exposed for struck in report.struck])
    if wrong:
        report.wrong[posted.id] = wrong
    report.jobs[posted.id] = job.status if job else "lost"
    report.attempts += job.attempt if job else 0


def _described(process: psutil.Process) -> str:
    return f"{process.pid} {' '.join(process.cmdline())}"
