"""What the living workers are doing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from jobstore.lifecycle import LEASED_STATUSES
from jobstore.tables import Job
from jobstore.workers import Slot, alive, slots_of

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.orm import Session

    from jobstore.tables import Worker

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Occupation:
    """A slot of a living worker, and the job that it trains; `step` is None until its training begins."""

    slot: Slot
    job_id: str | None = None
    step: int | None = None
    total_steps: int | None = None
    estimated_remaining_seconds: float | None = None

    @property
    def free(self) -> bool:
        return self.job_id is None


@dataclass(frozen=True)
class Crew:
    """A living worker and its slots."""

    worker: Worker
    slots: Sequence[Occupation]


def crews(session: Session) -> list[Crew]:
    """The living workers, each slot with what it is doing; one that says what cannot be understood is passed over."""
    held = {(row.worker_id, row.worker_slot): row for row in session.execute(_held())}

    def occupation(worker: Worker, slot: Slot) -> Occupation:
        row = held.get((worker.id, slot.name))
        if row is None:
            return Occupation(slot)
        progress = row.progress or {}
        return Occupation(
            slot,
            row.id,
            progress.get("step"),
            progress.get("total_steps"),
            progress.get("estimated_remaining_seconds"),
        )

    found = []
    for worker in alive(session):
        try:
            slots = slots_of(worker)
        except ValueError:
            _warn_of(worker.id, worker.hostname)
            continue
        found.append(Crew(worker, [occupation(worker, slot) for slot in slots]))
    return found


@lru_cache(maxsize=1000)
def _warn_of(worker_id: str, hostname: str) -> None:
    """Say it once for each worker: they are looked at in every pass of upkeep and for every list of jobs."""
    _log.warning(
        "worker %s on %s is passed over: this version does not understand what it says of its slots",
        worker_id,
        hostname,
    )


@cache
def _held() -> Select[str | None, str | None, str, dict[str, Any] | None]:
    return select(Job.worker_id, Job.worker_slot, Job.id, Job.progress).where(Job.status.in_([*LEASED_STATUSES]))
