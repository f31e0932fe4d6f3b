"""Every error becomes a problem in this file, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.offload_process import OffloadCause, OffloadFailed, OffloadRefused
from api.offload_protocol import FILE_GONE
from api.openapi import allowed_methods
from api.pointers import body_item, known_fields, parameter_item
from api.problems import ApiProblem, ProblemCode, ProblemItem, problem_response
from api.streaming import NothingToStream
from jobstore.control import NotPossible
from jobstore.database import DatabaseUnavailable, has_no_room
from jobstore.datasets import DatasetInUse
from jobstore.jobs import JobNotFinal
from jobstore.storage import StorageFailed
from pals_core.errors import ErrorCode, InvalidSpec, PalsError, Problem

if TYPE_CHECKING:
    from fastapi import FastAPI

_log = structlog.get_logger(__name__)

_BY_STATUS: Mapping[int, ProblemCode] = {
    400: ProblemCode.MALFORMED_REQUEST,
    404: ProblemCode.NOT_FOUND,
    405: ProblemCode.METHOD_NOT_ALLOWED,
    413: ProblemCode.BODY_TOO_LARGE,
    415: ProblemCode.UNSUPPORTED_MEDIA_TYPE,
}
_BY_ERROR_CODE: Mapping[str, ProblemCode] = {
    ErrorCode.INVALID_TABLE: ProblemCode.INVALID_TABLE,
    ErrorCode.INVALID_SPEC: ProblemCode.INVALID_SPEC,
    ErrorCode.INVALID_CHECKPOINT: ProblemCode.INVALID_CHECKPOINT,
    ErrorCode.INVALID_FORECAST_INPUT: ProblemCode.INVALID_FORECAST_INPUT,
    ErrorCode.OUT_OF_MEMORY: ProblemCode.FORECAST_TOO_LARGE,
    ErrorCode.DEVICE_UNAVAILABLE: ProblemCode.FORECAST_UNAVAILABLE,
    FILE_GONE: ProblemCode.STORAGE_UNAVAILABLE,
}
_BY_OFFLOAD_CAUSE: Mapping[OffloadCause, ProblemCode] = {
    OffloadCause.OUT_OF_MEMORY: ProblemCode.FORECAST_TOO_LARGE,
    OffloadCause.TIMEOUT: ProblemCode.FORECAST_TOO_LARGE,
    OffloadCause.CRASHED: ProblemCode.FORECAST_UNAVAILABLE,
    OffloadCause.BUSY: ProblemCode.FORECAST_UNAVAILABLE,
    OffloadCause.CLOSED: ProblemCode.FORECAST_UNAVAILABLE,
}


def as_items(problems: tuple[Problem, ...], *, prefix: str = "") -> list[ProblemItem]:
    """The library's problems; `prefix` leads from the request's body to the spec."""
    return [
        ProblemItem(
            pointer=None if problem.pointer is None else prefix + problem.pointer,
            message=problem.message,
            row=problem.row,
            column=problem.column,
        )
        for problem in problems
    ]


def from_library(error: PalsError) -> ApiProblem:
    """A problem of the library's; what is wrong with a spec is pointed at below /spec."""
    prefix = "/spec" if isinstance(error, InvalidSpec) else ""
    code = _BY_ERROR_CODE.get(error.code, ProblemCode.INTERNAL)
    return ApiProblem(code, error.message, as_items(error.problems, prefix=prefix))


def from_storage(error: StorageFailed) -> ApiProblem:
    return ApiProblem(ProblemCode.STORAGE_UNAVAILABLE, str(error))


def from_dataset_in_use(error: DatasetInUse) -> ApiProblem:
    detail = f"The dataset cannot be deleted: {error}. Cancel that job or wait for its end."
    return ApiProblem(ProblemCode.DATASET_IN_USE, detail)


def from_job_not_final(error: JobNotFinal) -> ApiProblem:
    return ApiProblem(ProblemCode.JOB_NOT_FINAL, str(error))


def from_not_possible(error: NotPossible) -> ApiProblem:
    return ApiProblem(ProblemCode.JOB_STATE_CONFLICT, str(error))


def from_refusal(error: OffloadRefused) -> ApiProblem:
    """What a child process found wrong."""
    code = _BY_ERROR_CODE.get(error.code, ProblemCode.INTERNAL)
    return ApiProblem(code, error.message, as_items(error.problems))


def from_offload(error: OffloadFailed) -> ApiProblem:
    return ApiProblem(_BY_OFFLOAD_CAUSE[error.cause], str(error))


def from_database(error: Exception) -> ApiProblem:
    """The database is away or too busy; what it said may hold its address and is logged only by kind."""
    _log.error("database_unavailable", kind=type(error).__name__)
    return ApiProblem(ProblemCode.DATABASE_UNAVAILABLE, "The database does not answer; try again in a few seconds.")


def from_database_error(error: DBAPIError) -> ApiProblem:
    if has_no_room(error):
        _log.error("database_full")
        return ApiProblem(ProblemCode.DATABASE_FULL, "The database's disk is full; nothing was changed.")
    if isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated:
        return from_database(error)
    return from_unexpected(error)


def from_unexpected(error: Exception) -> ApiProblem:
    """A fault of this service's; the trace goes to the log alone."""
    _log.error("unexpected_error", exc_info=error)
    return ApiProblem(ProblemCode.INTERNAL, "Something went wrong here; the log has the details under the request id.")


def from_validation(error: RequestValidationError, content_type: str, body_type: Any) -> ApiProblem:
    """What FastAPI found wrong with body or parameters; `body_type` is what the route takes, None: no body."""
    errors: list[Any] = list(error.errors())
    about_body = [item for item in errors if item["loc"][0] == "body"]
    if not about_body:
        return ApiProblem(
            ProblemCode.INVALID_QUERY,
            "A parameter of the request is invalid; see errors.",
            [parameter_item(item) for item in errors],
        )
    first = about_body[0]
    if first["type"] == "json_invalid":
        reason = first["ctx"]["error"]
        detail = f"The body is not JSON: {reason} at character {first['loc'][-1]}."
        return ApiProblem(ProblemCode.MALFORMED_JSON, detail)
    if isinstance(error.body, bytes):
        given = f"it is {content_type!r}" if content_type else "there is none"
        detail = f"Send the body as JSON with Content-Type: application/json; {given}."
        return ApiProblem(ProblemCode.UNSUPPORTED_MEDIA_TYPE, detail)
    if first["type"] == "missing" and len(first["loc"]) == 1:
        return ApiProblem(ProblemCode.INVALID_REQUEST, "The request needs a JSON body.", [body_item(first, None, {})])
    items = [body_item(item, error.body, known_fields(body_type)) for item in about_body]
    where = items[0].pointer or "the body"
    return ApiProblem(ProblemCode.INVALID_REQUEST, f"The body is invalid: {where} {items[0].message}", items)


def from_http(error: HTTPException, app: FastAPI, path: str) -> ApiProblem:
    """What the framework refuses by itself: unknown paths and methods, unreadable bodies."""
    code = _BY_STATUS.get(error.status_code, ProblemCode.MALFORMED_REQUEST)
    detail = str(error.detail)
    if code is ProblemCode.NOT_FOUND:
        detail = f"There is nothing at {path}; /docs lists what there is."
    elif code is ProblemCode.METHOD_NOT_ALLOWED:
        allowed = allowed_methods(app, path) or (error.headers or {}).get("Allow", "")
        return ApiProblem(code, f"{path} allows {allowed}.", headers={"Allow": allowed})
    elif error.status_code == 400:
        code = ProblemCode.MALFORMED_JSON
        detail = "The body cannot be parsed as JSON: it is nested too deeply, or a number in it is too long."
    return ApiProblem(code, detail, headers=error.headers)


_MAPPING: Mapping[type[Exception], Callable[[Any], ApiProblem]] = {
    PalsError: from_library,
    StorageFailed: from_storage,
    DatasetInUse: from_dataset_in_use,
    JobNotFinal: from_job_not_final,
    NotPossible: from_not_possible,
    OffloadRefused: from_refusal,
    OffloadFailed: from_offload,
    DatabaseUnavailable: from_database,
    PoolTimeout: from_database,
    DBAPIError: from_database_error,
    ApiProblem: lambda problem: problem,
}


def install(app: FastAPI) -> None:
    """Answer every error below `app` with a problem."""
    for kind, to_problem in _MAPPING.items():
        app.add_exception_handler(kind, _handler(to_problem))

    def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        body = request.scope["route"].body_field
        body_type = body and body.field_info.annotation
        return problem_response(request, from_validation(error, request.headers.get("content-type", ""), body_type))

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem_response(request, from_http(error, app, request.url.path))

    def nothing_to_stream(_request: Request, _error: Exception) -> Response:
        return Response(status_code=204)

    def disconnected(_request: Request, _error: Exception) -> Response:
        # Nobody reads this; the status is what the request log shows.
        return Response(status_code=499)

    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(NothingToStream, nothing_to_stream)
    app.add_exception_handler(ClientDisconnect, disconnected)


def _handler(to_problem: Callable[[Any], ApiProblem]) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        return problem_response(request, to_problem(error))

    return answer
