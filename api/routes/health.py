"""/healthz and /readyz"""

from __future__ import annotations

from fastapi import APIRouter

from api.problems import ApiProblem, ProblemCode, ProblemItem
from api.schemas.health import Live, Part, Ready
from api.services import Services, ServicesDep
from jobstore.artifacts import StorageFailed
from jobstore.database import DatabaseUnavailable
from jobstore.workers import alive

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


def _worker(services: Services) -> Part:
    with services.database.read() as session:
        count = len(alive(session))
    return Part(ready=count > 0, message=f"{count} live workers" if count else "no live worker")


@router.get("/healthz")
async def show_live() -> Live:
    """Answers while the process runs."""
    return Live()


@router.get("/readyz")
def show_ready(services: ServicesDep) -> Ready:
    """Answers 200 when a job could be taken and run: database, storage, broker and a worker are there."""
    parts = {"database": _database(services), "storage": _storage(services), "broker": _broker(services)}
    parts["worker"] = (
        _worker(services) if parts["database"].ready else Part(ready=False, message="unknown without the database")
    )
    missing = {name: part for name, part in parts.items() if not part.ready}
    if missing:
        raise ApiProblem(
            ProblemCode.NOT_READY,
            "; ".join(f"{name}: {part.message}" for name, part in missing.items()),
            [ProblemItem(parameter=name, message=part.message) for name, part in missing.items()],
            extensions={"parts": {name: part.model_dump() for name, part in parts.items()}},
        )
    return Ready(parts=parts)
