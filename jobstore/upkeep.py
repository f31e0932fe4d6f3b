"""What keeps the store true while processes die: run by every API and worker, by one at a time."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from jobstore.artifacts import forget, sweepable
from jobstore.clock import IMPLAUSIBLE, STEADY, ClockReading, make_up_for, read_clock, shorten_implausible
from jobstore.database import Database
from jobstore.database import now as database_now
from jobstore.fleet import crews
from jobstore.jobs import fail_overdue
from jobstore.leases import LONGEST_STORAGE_PAUSE_SECONDS, expire_leases
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
    """Device classes with queued jobs, each as often as a living worker has a free slot for one of them.

    Who hears a wake-up fills one slot.
    """
    free: Counter[str] = Counter(
        device
        for crew in crews(session)
        for occupied in crew.slots
        if occupied.free
        for device in occupied.slot.device_classes
    )
    now = database_now(session)
    ringing: list[DeviceClass] = []
    for device, slots in free.items():
        # No more than can be taken: there may be a million.
        some = select(Job.id).where(claimable(now), Job.device_class == device).limit(slots)
        ringing += [DeviceClass(device)] * len(session.scalars(some).all())
    return ringing


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
        self._clock: ClockReading | None = None  # at the pass before, whoever led
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
        if not self._take_back_lost():
            return False
        self._ring()
        self._clear_up()
        return True

    def _take_back_lost(self) -> bool:
        """Requeue the jobs of workers that are gone, committed before all else; False when another process leads."""
        lease_seconds = self._settings.lease_seconds
        with self._database.write() as session:
            clock = read_clock(session)
            leads = lead(session, self._holder, seconds=max(10.0, 3 * self._settings.upkeep_seconds))
            if leads:
                ahead = clock.ahead_since(self._clock) if self._clock is not None else timedelta()
                if ahead > STEADY:
                    _log.warning(
                        "the database's clock went %.0f s ahead, or this host slept: leases are extended",
                        ahead.total_seconds(),
                    )
                    make_up_for(session, ahead, now=clock.now, lease_seconds=lease_seconds)
                shorten_implausible(
                    session, now=clock.now, lease_seconds=lease_seconds, wait_seconds=LONGEST_STORAGE_PAUSE_SECONDS
                )
                expire_leases(session, now=clock.now, grace_seconds=self._settings.lease_grace_seconds)
        # Only now: a pass that was not committed has made up for nothing. Who does not lead watches the clock too,
        # because one that is set forward ends the leader's time as well.
        self._clock = clock
        return leads

    def _ring(self) -> None:
        with self._database.read() as session:
            waiting = classes_to_ring(session)
        for device_class in waiting:
            if not self._bell.ring(device_class):
                break  # the broker is away, and each wake-up would wait for it

    def _clear_up(self) -> None:
        """Fail what waited too long, forget what is over and remove what was given up."""
        with self._database.write() as session:
            now = database_now(session)
            fail_overdue(session, now=now)
            forget_dead(session, now=now)
            drop_expired_states(session, now=now, hours=self._settings.state_retention_hours)
            clear_expired(session, self._settings, now=now)
            doomed = sweepable(session, now=now)
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

    def _run(self) -> None:
        while not self._stop.wait(self._settings.upkeep_seconds):
            try:
                self.once()
            except (SQLAlchemyError, StorageFailed, OSError) as error:
                # The database or the disk is away: the next pass tries again.
                _log.warning("upkeep pass failed: %s", type(error).__name__)
            except Exception:
                # Whatever it is, the next process to lead would meet it as well.
                _log.exception("upkeep pass failed")
