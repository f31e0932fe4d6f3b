"""Who is alive and able to train."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from sqlalchemy import bindparam, delete, select, update

from jobstore.database import now as database_now
from jobstore.ids import Prefix, new_id
from jobstore.tables import Worker

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.orm import Session

ALIVE_SECONDS = 30.0


class DeviceClass(StrEnum):
    """Which workers may claim a job: those with a GPU, those of a CPU, or (auto) any."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"


@dataclass(frozen=True)
class Slot:
    """A worker's place for one training: on one GPU, named as CUDA_VISIBLE_DEVICES names it, or on the CPU."""

    name: str
    device_classes: tuple[DeviceClass, ...]
    threads: int
    gpu: str | None = None


_SLOTS = TypeAdapter(list[Slot])


@dataclass(frozen=True)
class WorkerIdentity:
    """A worker process: its id in the tables, and what it can do."""

    slots: tuple[Slot, ...]
    details: dict[str, Any]
    id: str = field(default_factory=lambda: new_id(Prefix.WORKER))
    hostname: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)


def announce(session: Session, worker: WorkerIdentity) -> None:
    """Write a sign of life of this worker; the first one inserts its row."""
    now = database_now(session)
    seen = session.execute(update(Worker).where(Worker.id == worker.id).values(seen_at=now))
    if seen.rowcount == 0:  # type: ignore[attr-defined]
        session.add(
            Worker(
                id=worker.id,
                hostname=worker.hostname,
                pid=worker.pid,
                slots=[asdict(slot) for slot in worker.slots],
                details=worker.details,
                started_at=now,
                seen_at=now,
            )
        )


def slots_of(worker: Worker) -> list[Slot]:
    """What a worker said of its slots. Raises ValueError when it is of a version that says it otherwise."""
    return _SLOTS.validate_python(worker.slots)


def retire(session: Session, worker_id: str) -> None:
    """Remove the row of a worker that stops."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def alive(session: Session) -> Sequence[Worker]:
    """Workers that gave a sign of life within ALIVE_SECONDS, by the database's clock."""
    since = database_now(session) - timedelta(seconds=ALIVE_SECONDS)
    return session.scalars(_seen_since(), {"since": since}).all()


@cache
def _seen_since() -> Select[Worker]:
    return select(Worker).where(Worker.seen_at >= bindparam("since")).order_by(Worker.id)


def forget_dead(session: Session, *, now: datetime, days: float = 1) -> None:
    """Remove rows of workers not seen for `days`."""
    session.execute(delete(Worker).where(Worker.seen_at < now - timedelta(days=days)))
