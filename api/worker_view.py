"""The living workers as the API shows them."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.schemas.workers import SlotBody, SlotJob, WorkerBody
from jobstore.fleet import Crew, Occupation, crews


def show_workers(session: Session) -> list[WorkerBody]:
    """The living workers and what each slot is doing."""
    return [_worker_body(crew) for crew in crews(session)]


def _worker_body(crew: Crew) -> WorkerBody:
    worker = crew.worker
    return WorkerBody(
        id=worker.id,
        hostname=worker.hostname,
        pid=worker.pid,
        slots=[_slot_body(occupied) for occupied in crew.slots],
        details=worker.details,
        started_at=worker.started_at,
        seen_at=worker.seen_at,
    )


def _slot_body(occupied: Occupation) -> SlotBody:
    slot, job = occupied.slot, None
    if occupied.job_id is not None:
        job = SlotJob(id=occupied.job_id, step=occupied.step, total_steps=occupied.total_steps)
    return SlotBody(name=slot.name, device_classes=[*slot.device_classes], threads=slot.threads, gpu=slot.gpu, job=job)
