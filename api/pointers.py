"""Pydantic's validation errors as JSON pointers and sentences."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from api.problems import ProblemItem
from api.schemas.bodies import POINTER_CONTEXT, pointer_token
from api.schemas.forecasts import ForecastRequest
from api.schemas.jobs import JobRequest, Limits
from pals_core.spec import METHOD_SPECS, MODEL_SPECS, DataSpec, Spec, Split, TrainingSpec

# The fields each object of a request knows, by the name it stands under; "" is the body itself.
KNOWN_FIELDS: Mapping[str, frozenset[str]] = {
    "": frozenset([*JobRequest.model_fields, *ForecastRequest.model_fields]),
    "limits": frozenset(Limits.model_fields),
    "spec": frozenset(Spec.model_fields),
    "data": frozenset(DataSpec.model_fields),
    "split": frozenset(Split.model_fields),
    "model": frozenset(name for spec in MODEL_SPECS for name in spec.model_fields),
    "method": frozenset(name for spec in METHOD_SPECS for name in spec.model_fields),
    "training": frozenset(TrainingSpec.model_fields),
}


def body_item(error: Mapping[str, Any], body: Any) -> ProblemItem:
    """One pydantic error about the request body, whose `loc` begins with "body"."""
    context = error.get("ctx", {})
    if POINTER_CONTEXT in context:
        return ProblemItem(pointer=context[POINTER_CONTEXT], message=error["msg"])
    path = _path_in(body, error["loc"][1:], keep_last=error["type"] == "missing")
    return ProblemItem(pointer="".join(f"/{pointer_token(key)}" for key in path), message=_sentence(error, path))


def parameter_item(error: Mapping[str, Any]) -> ProblemItem:
    """One pydantic error about a query, path or header parameter."""
    return ProblemItem(parameter=str(error["loc"][-1]), message=_sentence(error, ()))


def _path_in(body: Any, location: Sequence[str | int], *, keep_last: bool) -> list[str | int]:
    """The part of `location` that exists in the body: discriminator tags and validators' names do not."""
    path: list[str | int] = []
    value: Any = body
    for position, key in enumerate(location):
        exists = key in value if isinstance(value, dict) else isinstance(value, list) and key in range(len(value))
        if exists:
            value = value[key]
        elif not (keep_last and position == len(location) - 1):
            continue
        path.append(key)
    return path


def _sentence(error: Mapping[str, Any], path: Sequence[str | int]) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return _unknown_field(path)
        case "union_tag_invalid":
            expected = context["expected_tags"].replace("'", "")
            return f"{path[-1] if path else 'name'} must be one of {expected}; it is {context['tag']!r}"
        case "union_tag_not_found":
            return f'needs a name: the {path[-1] if path else "object"} is told apart by its field "name"'
    message: str = error["msg"]
    return message.removeprefix("Value error, ").replace("Input should be", "must be")


def _unknown_field(path: Sequence[str | int]) -> str:
    if not path:
        return "is not a field of this request"
    name = str(path[-1])
    parent = str(path[-2]) if len(path) > 1 else ""
    known = KNOWN_FIELDS.get(parent, frozenset())
    if close := difflib.get_close_matches(name, known, n=1):
        return f"is not a field here; did you mean {close[0]!r}?"
    elsewhere = sorted(section for section, fields in KNOWN_FIELDS.items() if section and name in fields)
    if elsewhere:
        return f"is not a field here; it belongs into {' or '.join(elsewhere)}"
    return "is not a field here" + (f"; there are {', '.join(sorted(known))}" if known else "")
