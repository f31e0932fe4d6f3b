"""How long a queued job is likely to wait: from what is at work and how long jobs took of late."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from jobstore.fleet import crews
from jobstore.lifecycle import JobStatus
from jobstore.tables import Job
from jobstore.workers import DeviceClass

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.orm import Session

RECENT_JOBS = 50


@dataclass(frozen=True)
class Pace:
    """When the slots of some workers become free, and how long a job takes.

    `remaining` has one entry for each job at work, in seconds; None where its training has not said yet.
    """

    slots: int
    remaining: tuple[float | None, ...]
    seconds_per_job: float | None

    def wait(self, jobs_ahead: int) -> float | None:
        """Seconds until a slot is free for a job behind `jobs_ahead` others, as long as nothing changes; None: unknown.

        Each job is taken to last as long as the recent ones did.
        """
        if self.slots == 0:
            return None
        idle = max(0, self.slots - len(self.remaining))
        if jobs_ahead < idle:
            return 0.0
        if self.seconds_per_job is None:
            return None
        busy = [self.seconds_per_job if left is None else left for left in self.remaining]
        free = sorted([0.0] * idle + busy)[: self.slots]
        rounds, slot = divmod(jobs_ahead, self.slots)
        return free[slot] + rounds * self.seconds_per_job


def paces(session: Session, devices: Collection[DeviceClass]) -> dict[DeviceClass, Pace]:
    """The pace of the slots for each of these device classes.

    Jobs that succeeded last, whoever's and wherever, say how long one takes.
    """
    seconds_per_job = session.scalar(_recent_seconds())
    slots = [slot for crew in crews(session) for slot in crew.slots]

    def pace(device: DeviceClass) -> Pace:
        serving = [occupied for occupied in slots if device in occupied.slot.device_classes]
        remaining = tuple(occupied.estimated_remaining_seconds for occupied in serving if not occupied.free)
        return Pace(len(serving), remaining, seconds_per_job)

    return {device: pace(device) for device in devices}


@cache
def _recent_seconds() -> Select[float]:
    recent = (
        select(Job.runtime_seconds)
        .where(Job.status == JobStatus.SUCCEEDED, Job.finished_at.is_not(None))
        .order_by(Job.finished_at.desc())
        .limit(RECENT_JOBS)
        .subquery()
    )
    return select(func.avg(recent.c.runtime_seconds))
