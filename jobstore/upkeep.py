"""What keeps the store true while processes die: run by every API and worker, by one at a time."""

from __future__ import annotations

import logging
import os
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from jobstore.artifacts import forget, sweepable
from jobstore.clock import IMPLAUSIBLE, shorten_implausible
from jobstore.database import Database
from jobstore.database import now as database_now
from jobstore.fleet import crews
from jobstore.jobs import fail_overdue
from jobstore.leases import STORAGE_PAUSE_SECONDS, expire_leases
from jobstore.retention import clear_expired
from jobstore.settings import Settings
from jobstore.states import drop_expired_states
from jobstore.storage import ArtifactStore, StorageFailed
from jobstore.tables import Job, Leader
from jobstore.turns import claimable
from jobstore.wakeups import Bell
from jobstore.workers import DeviceClass, forget_dead

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

LEADER = "upkeep"
# A slow or silent store must not keep leases from being looked at; the next pass removes the rest.
SWEEP_SECONDS = 5.0
_log = logging.getLogger(__name__)


def lead(session: Session, holder: str, *, seconds: float) -> bool:
    """Take or keep the leader's row for `seconds`; False while another process holds it.

    One that is held implausibly long was taken before the clock was set back, and may be taken as well.
    """
    now = database_now(session)
    until, implausible = now + timedelta(seconds=seconds), now + timedelta(seconds=IMPLAUSIBLE * seconds)
    row = {"name": LEADER, "holder": holder, "expires_at": until}
    if session.get_bind().dialect.name == "sqlite":
        session.execute(sqlite.insert(Leader).values(row).on_conflict_do_nothing())
    else:
        session.execute(postgresql.insert(Leader).values(row).on_conflict_do_nothing())
    taken = session.execute(
        update(Leader)
        .where(
            Leader.name == LEADER,
            or_(Leader.holder == holder, Leader.expires_at < now, Leader.expires_at > implausible),
        )
        .values(holder=holder, expires_at=until)
        .execution_options(synchronize_session=False)
    )
    return bool(taken.rowcount)  # type: ignore[attr-defined]


def classes_to_ring(session: Session) -> list[DeviceClass]:
    """Device classes with queued jobs that a living worker has a free slot for."""
    now = database_now(session)
    waiting = session.scalars(select(Job.device_class).where(claimable(now)).distinct()).all()
    if not waiting:
        return []
    served = {
        device
        for crew in crews(session)
        for occupied in crew.slots
        if occupied.free
        for device in occupied.slot.device_classes
    }
    return [DeviceClass(device) for device in waiting if device in served]


class Upkeep:
    """A thread that, while it leads, expires leases, fails overdue jobs, sweeps and rings."""

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactStore,
        bell: Bell,
        settings: Settings,
    ) -> None:
        self._database = database
        self._artifacts = artifacts
        self._bell = bell
        self._settings = settings
        # With the process in its name, so that people can see who leads.
        self._holder = f"{os.getpid()}-{uuid4().hex}"[:40]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; its leadership runs out by itself."""
        self._stop.set()
        self._thread.join()

    def once(self) -> bool:
        """One pass; False when another process leads."""
        with self._database.write() as session:
            if not lead(session, self._holder, seconds=max(10.0, 3 * self._settings.upkeep_seconds)):
                return False
            now = database_now(session)
            shorten_implausible(
                session, now=now, lease_seconds=self._settings.lease_seconds, wait_seconds=STORAGE_PAUSE_SECONDS
            )
            expire_leases(session, now=now, grace_seconds=self._settings.lease_grace_seconds)
            fail_overdue(session, now=now)
            forget_dead(session, now=now)
            drop_expired_states(session, now=now, hours=self._settings.state_retention_hours)
            clear_expired(session, self._settings, now=now)
            doomed = sweepable(session, now=now)
            waiting = classes_to_ring(session)
        for device_class in waiting:
            self._bell.ring(device_class)
        # Last, so that a file that cannot be removed holds up nothing else.
        removed: list[str] = []
        began = time.monotonic()
        for artifact_id, key in doomed:
            if time.monotonic() - began > SWEEP_SECONDS:
                break
            try:
                self._artifacts.delete(key)
            except StorageFailed as error:
                _log.warning("artifact %s not removed yet: %s", artifact_id, error)
                continue
            removed.append(artifact_id)
        if removed:
            with self._database.write() as session:
                forget(session, removed)
        return True

    def _run(self) -> None:
        while not self._stop.wait(self._settings.upkeep_seconds):
            try:
                self.once()
            except (SQLAlchemyError, StorageFailed, OSError) as error:
                # The database or the disk is away: the next pass tries again.
                _log.warning("upkeep pass failed: %s", type(error).__name__)
