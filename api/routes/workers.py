"""/v1/workers"""

from __future__ import annotations

from fastapi import APIRouter

from api.schemas.workers import WorkerBody, WorkerList
from api.services import ServicesDep
from jobstore.jobs import jobs_of_workers
from jobstore.workers import DeviceClass, alive

router = APIRouter(prefix="/v1/workers", tags=["workers"])


@router.get("")
def list_workers(services: ServicesDep) -> WorkerList:
    """The living workers, their devices, and what each is training."""
    with services.database.read() as session:
        jobs = jobs_of_workers(session)
        return WorkerList(
            data=[
                WorkerBody(
                    id=worker.id,
                    hostname=worker.hostname,
                    pid=worker.pid,
                    device_classes=[DeviceClass(device) for device in worker.device_classes],
                    slots=worker.slots,
                    jobs=jobs.get(worker.id, []),
                    details=worker.details,
                    started_at=worker.started_at,
                    seen_at=worker.seen_at,
                )
                for worker in alive(session)
            ]
        )
