"""/v1/jobs"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from api.errors import as_items
from api.existence import (
    Cursor,
    JobId,
    Limit,
    existing_dataset,
    existing_job,
    locked_dataset,
    locked_job,
    ready_profile,
)
from api.job_view import show_job, show_jobs
from api.problems import ApiProblem, ProblemCode, ProblemItem
from api.schemas.bodies import PageBody, storable_text
from api.schemas.jobs import METADATA_KEY_PATTERN, JobBody, JobRequest, PlanBody
from api.services import Services, ServicesDep
from jobstore.control import cancel, pause, resume, retry, unfinished_retry
from jobstore.jobs import NewJob, create_job, delete_job, list_jobs, unfinished_count
from jobstore.lifecycle import JobStatus
from jobstore.tables import DEFAULT_TENANT, Job
from jobstore.workers import DeviceClass
from pals_core.data.profile import TableProfile
from pals_core.feasibility import check, plan, resolve
from pals_core.spec import METHOD_SPECS, MODEL_SPECS, Spec

METADATA_PREFIX = "metadata."
_METADATA_KEY = re.compile(METADATA_KEY_PATTERN)
_MODELS = frozenset(spec.model_fields["name"].default for spec in MODEL_SPECS)
_METHODS = frozenset(spec.model_fields["name"].default for spec in METHOD_SPECS)
router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


def _checked(session: Session, body: JobRequest, *, locked: bool) -> TableProfile:
    """The profile of the job's dataset, once nothing speaks against training on it. Raises ApiProblem."""
    try:
        dataset = (locked_dataset if locked else existing_dataset)(session, body.dataset_id)
    except ApiProblem as problem:
        raise ApiProblem(
            problem.code, problem.detail, [ProblemItem(pointer="/dataset_id", message="there is no such dataset")]
        ) from None
    profile = ready_profile(dataset)
    if problems := check(body.spec, profile):
        items = as_items(problems, prefix="/spec")
        raise ApiProblem(ProblemCode.INVALID_SPEC, f"The job cannot run: {problems[0].message}", items)
    return profile


def _refuse_too_many(session: Session, services: Services) -> None:
    most = services.settings.max_queued_jobs
    if unfinished_count(session, DEFAULT_TENANT) >= most:
        detail = f"There are {most} unfinished jobs, the most allowed (PALS_MAX_QUEUED_JOBS); wait for some to end."
        raise ApiProblem(ProblemCode.TOO_MANY_JOBS, detail)


def _insert(session: Session, services: Services, body: JobRequest, spec: Spec) -> JobBody:
    _refuse_too_many(session, services)
    job = create_job(
        session,
        NewJob(
            tenant_id=DEFAULT_TENANT,
            name=body.name,
            dataset_id=body.dataset_id,
            spec=spec.model_dump(mode="json"),
            limits=body.limits.model_dump(mode="json"),
            device_class=DeviceClass(spec.training.device),
            priority=body.priority,
            metadata=body.metadata,
        ),
    )
    return show_job(session, job)


@router.post("", status_code=202, responses={200: {"model": PlanBody, "description": "Answer to validate_only"}})
def post_job(
    services: ServicesDep,
    response: Response,
    body: JobRequest,
    validate_only: Annotated[bool, Query(description="Check and estimate without queueing.")] = False,
) -> JobBody | PlanBody:
    """Queue a training on a ready dataset, or, with `validate_only`, say what it would amount to."""
    database = services.database
    transaction: AbstractContextManager[Session] = database.read() if validate_only else database.write()
    with transaction as session:
        profile = _checked(session, body, locked=not validate_only)
        spec = resolve(body.spec, profile)
        if validate_only:
            response.status_code = 200
            return PlanBody(spec=spec.model_dump(mode="json"), estimate=asdict(plan(spec, profile)))
        job = _insert(session, services, body, spec)
    services.ring(job.device_class)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job


def _metadata_filters(request: Request) -> dict[str, str]:
    filters = {}
    for name, value in request.query_params.items():
        if name.startswith(METADATA_PREFIX):
            key = name.removeprefix(METADATA_PREFIX)
            if not (_METADATA_KEY.match(key) and storable_text(key) and storable_text(value)):
                message = "is not a metadata key and value a job can have"
                items = [ProblemItem(parameter=name[:100], message=message)]
                raise ApiProblem(ProblemCode.INVALID_QUERY, "A metadata filter is invalid; see errors.", items)
            filters[key] = value
    return filters


def _known_name(parameter: str, name: str | None, known: frozenset[str]) -> str | None:
    if name is not None and name not in known:
        message = f"must be one of {', '.join(sorted(known))}"
        items = [ProblemItem(parameter=parameter, message=message)]
        raise ApiProblem(ProblemCode.INVALID_QUERY, f"The parameter {parameter} {message}.", items)
    return name


@router.get("")
def list_all_jobs(
    request: Request,
    services: ServicesDep,
    limit: Limit = 20,
    after: Cursor = None,
    status: JobStatus | None = None,
    dataset_id: Cursor = None,
    model: Annotated[str | None, Query(description="Name of a forecaster.")] = None,
    method: Annotated[str | None, Query(description="Name of a sparsification method.")] = None,
) -> PageBody[JobBody]:
    """The jobs, newest first; `metadata.<key>=<value>` filters by your own pairs."""
    filters = _metadata_filters(request)
    with services.database.read() as session:
        page = list_jobs(
            session,
            DEFAULT_TENANT,
            limit=limit,
            after=after,
            status=status,
            dataset_id=dataset_id,
            model=_known_name("model", model, _MODELS),
            method=_known_name("method", method, _METHODS),
            metadata=filters,
        )
        data = show_jobs(session, page.rows)
    return PageBody(data=data, has_more=page.next is not None, next=page.next)


@router.get("/{job_id}")
def show_one_job(services: ServicesDep, job_id: JobId) -> JobBody:
    """One job and where it stands."""
    with services.database.read() as session:
        return show_job(session, existing_job(session, job_id))


@router.post("/{job_id}/cancel", status_code=202)
def cancel_job(services: ServicesDep, job_id: JobId) -> JobBody:
    """Ask a job to stop. Repeating it, or asking one that has ended, changes nothing."""
    with services.database.write() as session:
        job = locked_job(session, job_id)
        cancel(session, job)
        session.flush()
        return show_job(session, job)


@router.post("/{job_id}/pause", status_code=202)
def pause_job(services: ServicesDep, job_id: JobId) -> JobBody:
    """Ask a job to save its state and give up its place; it is `paused` once it has. Repeating it changes nothing."""
    with services.database.write() as session:
        job = locked_job(session, job_id)
        pause(session, job)
        session.flush()
        return show_job(session, job)


@router.post("/{job_id}/resume", status_code=202)
def resume_job(services: ServicesDep, job_id: JobId) -> JobBody:
    """Queue a paused job again; it goes on from its saved state. Repeating it changes nothing."""
    with services.database.write() as session:
        job = locked_job(session, job_id)
        resume(session, job)
        session.flush()
        body = show_job(session, job)
    services.ring(body.device_class)
    return body


@router.post("/{job_id}/retry", status_code=202)
def retry_job(services: ServicesDep, response: Response, job_id: JobId) -> JobBody:
    """Queue a failed or cancelled job as a new one, which goes on from the last saved state where there is one.

    Until that one has ended, repeating gives it again.
    """
    with services.database.write() as session:
        job = locked_job(session, job_id)
        again = unfinished_retry(session, job)
        if again is None:
            _refuse_without_dataset(session, job)
            _refuse_too_many(session, services)
            again = retry(session, job)
        body = show_job(session, again)
    services.ring(body.device_class)
    response.headers["Location"] = f"/v1/jobs/{body.id}"
    return body


def _refuse_without_dataset(session: Session, job: Job) -> None:
    try:
        locked_dataset(session, job.dataset_id)
    except ApiProblem:
        detail = f"Job {job.id} cannot be retried: its dataset {job.dataset_id} has been deleted."
        raise ApiProblem(ProblemCode.DATASET_DELETED, detail) from None


@router.delete("/{job_id}", status_code=204)
def delete_one_job(services: ServicesDep, job_id: JobId) -> None:
    """Delete a job that has ended, with its events, metrics and checkpoints."""
    with services.database.write() as session:
        delete_job(session, locked_job(session, job_id))
