"""/healthz and /readyz"""

from __future__ import annotations

from fastapi import APIRouter

from api.problems import ApiProblem, ProblemCode, ProblemItem
from api.schemas.health import Live, Part, Ready
from api.schemas.workers import WorkerBody
from api.services import Services, ServicesDep
from api.worker_view import show_workers
from jobstore.database import DatabaseUnavailable
from jobstore.storage import StorageFailed

router = APIRouter(tags=["health"])


def _database(services: Services) -> Part:
    try:
        services.database.ping()
    except DatabaseUnavailable as error:
        return Part(ready=False, message=str(error))
    return Part(ready=True, message="the database answers")


def _storage(services: Services) -> Part:
    try:
        services.artifacts.ping()
    except StorageFailed as error:
        return Part(ready=False, message=str(error))
    return Part(ready=True, message="the artifact store takes bytes")


def _broker(services: Services) -> Part:
    if services.bell.reachable():
        return Part(ready=True, message="the broker answers")
    return Part(ready=False, message="the broker does not answer")


def _worker(workers: list[WorkerBody]) -> Part:
    if not workers:
        return Part(ready=False, message="no live worker")
    slots = [slot for worker in workers for slot in worker.slots]
    at_work = sum(slot.job is not None for slot in slots)
    return Part(ready=True, message=f"{len(workers)} live, {at_work} of {len(slots)} slots at work")


@router.get("/healthz")
async def show_live() -> Live:
    """Answers while the process runs."""
    return Live()


@router.get("/readyz")
def show_ready(services: ServicesDep) -> Ready:
    """Answers 200 when a job could be taken and run: database, storage, broker and a worker are there."""
    parts = {"database": _database(services), "storage": _storage(services), "broker": _broker(services)}
    workers: list[WorkerBody] = []
    if parts["database"].ready:
        with services.database.read() as session:
            workers = show_workers(session)
        parts["worker"] = _worker(workers)
    else:
        parts["worker"] = Part(ready=False, message="unknown without the database")
    missing = {name: part for name, part in parts.items() if not part.ready}
    if missing:
        raise ApiProblem(
            ProblemCode.NOT_READY,
            "; ".join(f"{name}: {part.message}" for name, part in missing.items()),
            [ProblemItem(parameter=name, message=part.message) for name, part in missing.items()],
            extensions={"parts": {name: part.model_dump() for name, part in parts.items()}},
        )
    return Ready(parts=parts, workers=workers)
