"""Answers that refuse: RFC 9457 problem details, one stable code per cause."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

PROBLEM_MEDIA_TYPE = "application/problem+json"
MAX_ITEMS = 50


class ProblemCode(StrEnum):
    """Every `code` of a problem; `STATUS_AND_TITLE` gives the status it comes with."""

    MALFORMED_REQUEST = "malformed_request"
    MALFORMED_JSON = "malformed_json"
    MALFORMED_MULTIPART = "malformed_multipart"
    FOREIGN_ORIGIN = "foreign_origin"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    DATASET_IN_USE = "dataset_in_use"
    DATASET_AUDITING = "dataset_auditing"
    DATASET_DELETED = "dataset_deleted"
    JOB_NOT_FINAL = "job_not_final"
    JOB_STATE_CONFLICT = "job_state_conflict"
    BODY_TOO_LARGE = "body_too_large"
    UPLOAD_TOO_LARGE = "upload_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    MISDIRECTED_REQUEST = "misdirected_request"
    INVALID_REQUEST = "invalid_request"
    INVALID_QUERY = "invalid_query"
    INVALID_SPEC = "invalid_spec"
    INVALID_TABLE = "invalid_table"
    INVALID_DATASET = "invalid_dataset"
    INVALID_FORECAST_INPUT = "invalid_forecast_input"
    FORECAST_TOO_LARGE = "forecast_too_large"
    VARIANT_FAILED = "variant_failed"
    VARIANT_TOO_LARGE = "variant_too_large"
    TOO_MANY_JOBS = "too_many_jobs"
    INVALID_CHECKPOINT = "invalid_checkpoint"
    INTERNAL = "internal"
    DATABASE_UNAVAILABLE = "database_unavailable"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    FORECAST_UNAVAILABLE = "forecast_unavailable"
    VARIANT_UNAVAILABLE = "variant_unavailable"
    NOT_READY = "not_ready"
    STORAGE_FULL = "storage_full"
    DATABASE_FULL = "database_full"


_C = ProblemCode
STATUS_AND_TITLE: Mapping[ProblemCode, tuple[int, str]] = {
    _C.MALFORMED_REQUEST: (400, "The request cannot be read"),
    _C.MALFORMED_JSON: (400, "The body is not JSON"),
    _C.MALFORMED_MULTIPART: (400, "The body is not a multipart form"),
    _C.FOREIGN_ORIGIN: (403, "Requests from another site's pages are refused"),
    _C.NOT_FOUND: (404, "Not found"),
    _C.METHOD_NOT_ALLOWED: (405, "Method not allowed"),
    _C.DATASET_IN_USE: (409, "The dataset is in use"),
    _C.DATASET_AUDITING: (409, "The dataset is still being audited"),
    _C.DATASET_DELETED: (409, "The dataset has been deleted"),
    _C.JOB_NOT_FINAL: (409, "The job has not ended"),
    _C.JOB_STATE_CONFLICT: (409, "The job's state does not permit that"),
    _C.BODY_TOO_LARGE: (413, "The body is too large"),
    _C.UPLOAD_TOO_LARGE: (413, "The upload is too large"),
    _C.UNSUPPORTED_MEDIA_TYPE: (415, "Unsupported content type"),
    _C.RANGE_NOT_SATISFIABLE: (416, "The range lies outside the content"),
    _C.MISDIRECTED_REQUEST: (421, "This service does not go by that host name"),
    _C.INVALID_REQUEST: (422, "The body is invalid"),
    _C.INVALID_QUERY: (422, "A parameter is invalid"),
    _C.INVALID_SPEC: (422, "The training spec does not fit the dataset"),
    _C.INVALID_TABLE: (422, "The upload is not a readable series table"),
    _C.INVALID_DATASET: (422, "The dataset cannot be trained on"),
    _C.INVALID_FORECAST_INPUT: (422, "The forecast input does not fit the model"),
    _C.FORECAST_TOO_LARGE: (422, "The forecast needs more than is allowed"),
    _C.VARIANT_FAILED: (422, "The checkpoint cannot be written like that"),
    _C.VARIANT_TOO_LARGE: (422, "The variant needs more than is allowed"),
    _C.TOO_MANY_JOBS: (429, "Too many unfinished jobs"),
    _C.INVALID_CHECKPOINT: (500, "The stored checkpoint cannot be used"),
    _C.INTERNAL: (500, "Internal error"),
    _C.DATABASE_UNAVAILABLE: (503, "The database does not answer"),
    _C.STORAGE_UNAVAILABLE: (503, "The artifact store does not answer"),
    _C.FORECAST_UNAVAILABLE: (503, "Forecasting is unavailable for the moment"),
    _C.VARIANT_UNAVAILABLE: (503, "The variant cannot be made for the moment"),
    _C.NOT_READY: (503, "Not ready"),
    _C.STORAGE_FULL: (507, "The artifact store could not keep the upload"),
    _C.DATABASE_FULL: (507, "The database has no room"),
}
RETRY_AFTER_SECONDS = "5"


class ProblemItem(BaseModel):
    """One thing that is wrong and where: in the body, the query or the file."""

    pointer: str | None = Field(None, description="JSON pointer into the request body; null when it is not about it.")
    message: str
    parameter: str | None = Field(None, description="Query or path parameter or header it is about.")
    row: int | None = Field(None, description="Row of the file as an editor counts lines; the header is row 1.")
    column: str | None = Field(None, description="Column of the file.")


class ProblemBody(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(description="URI that names the kind of problem.", examples=["urn:pals:problem:not_found"])
    title: str
    status: int
    detail: str = Field(description="What is wrong and what to do about it.")
    instance: str = Field(description="Path of the request.")
    code: ProblemCode
    errors: list[ProblemItem] = Field(default_factory=list)
    request_id: str = Field(description="Also in the header X-Request-Id and in the service's log.")


class ApiProblem(Exception):
    """An answer that refuses; `api.errors` turns it into a response."""

    def __init__(
        self,
        code: ProblemCode,
        detail: str,
        errors: Sequence[ProblemItem] = (),
        *,
        headers: Mapping[str, str] | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})
        self.extensions = dict(extensions or {})


class ProblemResponse(Response):
    media_type = PROBLEM_MEDIA_TYPE


def problem_response(request: Request, problem: ApiProblem) -> Response:
    """Render a problem; 429 and 503 carry Retry-After."""
    status, title = STATUS_AND_TITLE[problem.code]
    left_out = len(problem.errors) - MAX_ITEMS
    body = ProblemBody(
        type=f"urn:pals:problem:{problem.code}",
        title=title,
        status=status,
        detail=problem.detail + (f" ({left_out} more errors are not listed)" if left_out > 0 else ""),
        instance=request.scope["raw_path"].decode("ascii", "replace"),
        code=problem.code,
        errors=problem.errors[:MAX_ITEMS],
        request_id=request.scope.get("state", {}).get("request_id", ""),
    )
    headers = problem.headers
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers = {"Retry-After": RETRY_AFTER_SECONDS, **headers}
    return ProblemResponse(_json(body, problem.extensions), status, headers)


def _json(body: ProblemBody, extensions: Mapping[str, Any]) -> bytes:
    plain = body.model_dump(mode="python")
    plain["errors"] = [
        {"pointer": item.pointer, **item.model_dump(exclude_none=True, exclude={"pointer"})} for item in body.errors
    ]
    # A message may quote what a client sent, lone surrogates included; ASCII escapes always encode.
    return json.dumps(plain | dict(extensions), allow_nan=False).encode("ascii")
