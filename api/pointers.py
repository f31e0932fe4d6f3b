"""Pydantic's validation errors about a request as JSON pointers and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from api.problems import ProblemItem
from api.schemas.bodies import POINTER_CONTEXT, RequestBody
from api.schemas.forecasts import ForecastRequest, FutureValues
from api.schemas.jobs import JobRequest, Limits
from pals_core.spec import Spec
from pals_core.spec.problems import SPEC_FIELDS, problem_of, sentence_of

# The fields each object of a body knows, by the name it stands under; "" is the body itself.
_KNOWN_FIELDS: Mapping[type[RequestBody], Mapping[str, frozenset[str]]] = {
    JobRequest: {
        **SPEC_FIELDS,
        "": frozenset(JobRequest.model_fields),
        "limits": frozenset(Limits.model_fields),
        "spec": frozenset(Spec.model_fields),
    },
    ForecastRequest: {
        "": frozenset(ForecastRequest.model_fields),
        "future": frozenset(FutureValues.model_fields),
    },
}


def known_fields(body_type: Any) -> Mapping[str, frozenset[str]]:
    """Return the fields of the objects in a body of this type, or none for a type that is no JSON body of ours."""
    return next((_KNOWN_FIELDS[kind] for kind in (body_type, *get_args(body_type)) if kind in _KNOWN_FIELDS), {})


def body_item(error: Mapping[str, Any], body: Any, known: Mapping[str, frozenset[str]]) -> ProblemItem:
    """One pydantic error about the request body, whose `loc` begins with "body"."""
    context = error.get("ctx", {})
    if POINTER_CONTEXT in context:
        return ProblemItem(pointer=context[POINTER_CONTEXT], message=error["msg"])
    problem = problem_of(error, body, error["loc"][1:], known)
    return ProblemItem(pointer=problem.pointer, message=problem.message)


def parameter_item(error: Mapping[str, Any]) -> ProblemItem:
    """One pydantic error about a query, path or header parameter."""
    return ProblemItem(parameter=str(error["loc"][-1]), message=sentence_of(error))
