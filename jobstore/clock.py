"""When the database's clock is set back, leases and waits that were given before would last longer by the jump."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from jobstore.lifecycle import LEASED_STATUSES
from jobstore.tables import Job
from jobstore.turns import is_queued

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

# How many times its usual length a lease has to have left before it is taken for one from before a jump: processes
# with other settings than this one's give longer leases.
IMPLAUSIBLE = 10


def shorten_implausible(session: Session, *, now: datetime, lease_seconds: float, wait_seconds: float) -> None:
    """Let leases and waits that end implausibly late end when one given now would.

    Whoever is alive renews its lease; without this a dead worker's would keep its job until the clock has caught up.
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
    waiting = select(Job).where(is_queued(), Job.not_before > now).with_for_update(skip_locked=True)
    for job in session.scalars(waiting):
        latest = now + timedelta(seconds=wait_seconds * max(1, job.losses))
        job.not_before = min(job.not_before or latest, latest)
