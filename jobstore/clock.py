"""When the database's clock is set, leases and waits that were given before would end too early or too late."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from jobstore.database import now as database_now
from jobstore.lifecycle import LEASED_STATUSES
from jobstore.tables import Job
from jobstore.turns import is_queued

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

# How many times its usual length a lease has to have left before it is taken for one from before a jump: processes
# with other settings than this one's give longer leases.
IMPLAUSIBLE = 10
# What the database's clock may go ahead by without having been set.
STEADY = timedelta(seconds=2)


@dataclass(frozen=True)
class ClockReading:
    """The database's time, and this process's own before and after it was asked for."""

    now: datetime
    asked: float
    answered: float

    def ahead_since(self, earlier: ClockReading) -> timedelta:
        """How far, at least, the database's clock has gone ahead of this process's own, which a sleeping host stops."""
        return self.now - earlier.now - timedelta(seconds=self.answered - earlier.asked)


def read_clock(session: Session) -> ClockReading:
    """What the database's clock and this process's own say."""
    asked = monotonic()
    now = database_now(session)
    return ClockReading(now, asked, monotonic())


def make_up_for(session: Session, ahead: timedelta, *, now: datetime, lease_seconds: float) -> None:
    """Let leases and waits given before the clock went `ahead` last as long as they were to.

    A lease with half of its time left was renewed since, or will be in time: it stays as it is.
    """
    given = (
        select(Job)
        .where(Job.status.in_([*LEASED_STATUSES]), Job.lease_expires_at < now + timedelta(seconds=lease_seconds / 2))
        .with_for_update()
    )
    for job in session.scalars(given):
        assert job.lease_expires_at is not None
        job.lease_expires_at += ahead
    waiting = select(Job).where(is_queued(), Job.not_before > now - ahead).with_for_update(skip_locked=True)
    for job in session.scalars(waiting):
        assert job.not_before is not None
        job.not_before += ahead


def shorten_implausible(session: Session, *, now: datetime, lease_seconds: float, wait_seconds: float) -> None:
    """Let leases that end implausibly late end when one given now would, and waits that do be over.

    Whoever is alive renews its lease; without this a dead worker's would keep its job until the clock has caught up.
    How long a job was to wait yet, nobody knows; one that begins too early is put off again.
    """
    session.execute(
        update(Job)
        .where(
            Job.status.in_([*LEASED_STATUSES]),
            Job.lease_expires_at > now + timedelta(seconds=IMPLAUSIBLE * lease_seconds),
        )
        .values(lease_expires_at=now + timedelta(seconds=lease_seconds))
        .execution_options(synchronize_session=False)
    )
    session.execute(
        update(Job)
        .where(is_queued(), Job.not_before > now + timedelta(seconds=wait_seconds))
        .values(not_before=now)
        .execution_options(synchronize_session=False)
    )
