"""/v1/jobs/{job_id}/metrics"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.existence import JobId, existing_job
from api.problems import ApiProblem, ProblemCode, ProblemItem
from api.schemas.bodies import storable_text
from api.schemas.metrics import MetricsBody, SeriesBody
from api.services import ServicesDep
from jobstore.metrics import read_series

router = APIRouter(prefix="/v1/jobs/{job_id}/metrics", tags=["metrics"])


@router.get("")
def show_metrics(
    services: ServicesDep,
    job_id: JobId,
    names: Annotated[
        str | None,
        Query(max_length=1000, description="Names of series, divided by commas; all if left out."),
    ] = None,
    max_points: Annotated[int, Query(ge=2, le=100_000, description="Most points of a series.")] = 1000,
) -> MetricsBody:
    """The numbers of a job over its steps, in columns, thinned for plotting."""
    if names is not None and not storable_text(names):
        items = [ProblemItem(parameter="names", message="holds a NUL character")]
        raise ApiProblem(ProblemCode.INVALID_QUERY, "The parameter names is invalid.", items)
    wanted = None if names is None else {name.strip() for name in names.split(",")}
    with services.database.read() as session:
        existing_job(session, job_id)
        series = read_series(session, job_id, names=wanted, max_points=max_points)
    return MetricsBody(
        job_id=job_id, series={one.name: SeriesBody(steps=[*one.steps], values=[*one.values]) for one in series}
    )
