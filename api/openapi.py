"""The OpenAPI document: every operation with the problems it may answer."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.problems import PROBLEM_MEDIA_TYPE, ProblemBody, ProblemCode

_EXAMPLE = {
    "type": f"urn:pals:problem:{ProblemCode.INVALID_SPEC}",
    "title": "The training spec does not fit the dataset",
    "status": 422,
    "detail": "The job cannot run: horizon 5000 does not fit into the validation part: at most 52 fits",
    "instance": "/v1/jobs",
    "code": ProblemCode.INVALID_SPEC,
    "errors": [{"pointer": "/spec/data/horizon", "message": "horizon 5000 does not fit: at most 52 fits"}],
    "request_id": "1b4f0e9851971998e732078544c96b36",
}
# Every operation may answer these; an operation's own refusals are told by `code`.
_PROBLEMS = {
    "4XX": "The request is refused; `code` says why and `errors` where",
    "5XX": "The service could not answer; `code` says why",
}


def install(app: FastAPI) -> None:
    """Serve a document in which refusals are problem details rather than FastAPI's own."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def allowed_methods(app: FastAPI, path: str) -> str:
    """The methods a path knows, as an Allow header lists them; the framework itself tells those of one route."""
    methods: set[str] = set()
    for template, operations in app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path):
            methods.update(method.upper() for method in operations)
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": _EXAMPLE}}
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            for status, description in _PROBLEMS.items():
                operation["responses"][status] = {"description": description, "content": content}
    return document
