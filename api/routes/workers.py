"""/v1/workers"""

from __future__ import annotations

from fastapi import APIRouter

from api.schemas.workers import WorkerList
from api.services import ServicesDep
from api.worker_view import show_workers

router = APIRouter(prefix="/v1/workers", tags=["workers"])


@router.get("")
def list_workers(services: ServicesDep) -> WorkerList:
    """The living workers, their slots, and what each is training."""
    with services.database.read() as session:
        return WorkerList(data=show_workers(session))
