"""Pydantic's validation errors about a request as JSON pointers and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.problems import ProblemItem
from api.schemas.bodies import POINTER_CONTEXT
from api.schemas.forecasts import ForecastRequest
from api.schemas.jobs import JobRequest, Limits
from pals_core.spec import Spec
from pals_core.spec.problems import SPEC_FIELDS, problem_of, sentence_of

# The fields each object of a request knows, by the name it stands under; "" is the body itself.
KNOWN_FIELDS: Mapping[str, frozenset[str]] = {
    **SPEC_FIELDS,
    "": frozenset([*JobRequest.model_fields, *ForecastRequest.model_fields]),
    "limits": frozenset(Limits.model_fields),
    "spec": frozenset(Spec.model_fields),
}


def body_item(error: Mapping[str, Any], body: Any) -> ProblemItem:
    """One pydantic error about the request body, whose `loc` begins with "body"."""
    context = error.get("ctx", {})
    if POINTER_CONTEXT in context:
        return ProblemItem(pointer=context[POINTER_CONTEXT], message=error["msg"])
    problem = problem_of(error, body, error["loc"][1:], KNOWN_FIELDS)
    return ProblemItem(pointer=problem.pointer, message=problem.message)


def parameter_item(error: Mapping[str, Any]) -> ProblemItem:
    """One pydantic error about a query, path or header parameter."""
    return ProblemItem(parameter=str(error["loc"][-1]), message=sentence_of(error))
