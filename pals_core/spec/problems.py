"""Pydantic's validation errors as JSON pointers (RFC 6901) and sentences."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pals_core.errors import Problem, pointer_of
from pals_core.spec.data import DataSpec, Split
from pals_core.spec.methods import METHOD_SPECS
from pals_core.spec.models import MODEL_SPECS
from pals_core.spec.training import TrainingSpec
from pals_core.spec.whole import Spec

# The fields each object of a spec knows, by the name it stands under; "" is the spec itself.
SPEC_FIELDS: Mapping[str, frozenset[str]] = {
    "": frozenset(Spec.model_fields),
    "data": frozenset(DataSpec.model_fields),
    "split": frozenset(Split.model_fields),
    "model": frozenset(name for spec in MODEL_SPECS for name in spec.model_fields),
    "method": frozenset(name for spec in METHOD_SPECS for name in spec.model_fields),
    "training": frozenset(TrainingSpec.model_fields),
}


def problem_of(
    error: Mapping[str, Any],
    content: Any,
    location: Sequence[str | int],
    known: Mapping[str, frozenset[str]] = SPEC_FIELDS,
) -> Problem:
    """Return one of pydantic's errors about `content`, at the place that `location` names in it.

    `known` are the fields of the objects in it, by the name these stand under.
    """
    path = _path_in(content, location, keep_last=error["type"] == "missing")
    return Problem(sentence_of(error, path, known), pointer=pointer_of(path))


def sentence_of(
    error: Mapping[str, Any], path: Sequence[str | int] = (), known: Mapping[str, frozenset[str]] = SPEC_FIELDS
) -> str:
    """Return what is wrong at a path."""
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return _unknown_field(path, known)
        case "union_tag_invalid":
            expected = context["expected_tags"].replace("'", "")
            return f"{path[-1] if path else 'name'} must be one of {expected}; it is {context['tag']!r}"
        case "union_tag_not_found":
            return f'needs a name: the {path[-1] if path else "object"} is told apart by its field "name"'
    message: str = error["msg"]
    return message.removeprefix("Value error, ").replace("Input should be", "must be")


def _path_in(content: Any, location: Sequence[str | int], *, keep_last: bool) -> list[str | int]:
    """The part of `location` that exists in the content: discriminator tags and validators' names do not."""
    path: list[str | int] = []
    value = content
    for position, key in enumerate(location):
        exists = (
            key in value if isinstance(value, Mapping) else isinstance(value, list | tuple) and key in range(len(value))
        )
        if exists:
            value = value[key]
        elif not (keep_last and position == len(location) - 1):
            continue
        path.append(key)
    return path


def _unknown_field(path: Sequence[str | int], known: Mapping[str, frozenset[str]]) -> str:
    if not path:
        return "is not a field of this request"
    name = str(path[-1])
    fields = known.get(str(path[-2]) if len(path) > 1 else "", frozenset())
    if close := difflib.get_close_matches(name, fields, n=1):
        return f"is not a field here; did you mean {close[0]!r}?"
    if elsewhere := sorted(section for section, names in known.items() if section and name in names):
        return f"is not a field here; it belongs into {' or '.join(elsewhere)}"
    return "is not a field here" + (f"; there are {', '.join(sorted(fields))}" if fields else "")
