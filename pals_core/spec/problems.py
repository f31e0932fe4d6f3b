"""Pydantic's validation errors as JSON pointers (RFC 6901) and sentences."""

from __future__ import annotations

import difflib
import json
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

# Of the models and methods, which are told apart by their names.
_FIELDS_BY_NAME: Mapping[tuple[str, str], frozenset[str]] = {
    (section, spec.model_fields["name"].default): frozenset(spec.model_fields)
    for section, specs in (("model", MODEL_SPECS), ("method", METHOD_SPECS))
    for spec in specs
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
    return Problem(sentence_of(error, path, known, _name_above(content, path)), pointer=pointer_of(path))


def sentence_of(
    error: Mapping[str, Any],
    path: Sequence[str | int] = (),
    known: Mapping[str, frozenset[str]] = SPEC_FIELDS,
    name: str | None = None,
) -> str:
    """Return what is wrong at a path; `name` is that of the model or method the last part of it stands in."""
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return _unknown_field(path, known, name)
        case "union_tag_invalid":
            expected = context["expected_tags"].replace("'", "")
            return f"{path[-1] if path else 'name'} must be one of {expected}; it is {context['tag']!r}"
        case "list_type" | "tuple_type":
            example = f": [{json.dumps(error['input'])}]" if isinstance(error["input"], str) else ""
            return f"must be a list{example}"
        case "too_short":
            return f"must have at least {_counted(context['min_length'])}"
        case "too_long":
            return f"must have at most {_counted(context['max_length'])}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be an object, {…}"
        case "union_tag_not_found":
            return f'needs a name: the {path[-1] if path else "object"} is told apart by its field "name"'
    message: str = error["msg"]
    return message.removeprefix("Value error, ").replace("Input should be", "must be")


def _counted(items: int) -> str:
    return f"{items} item" + ("" if items == 1 else "s")


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


def _name_above(content: Any, path: Sequence[str | int]) -> str | None:
    """The `name` in the object that the last part of a path stands in."""
    for key in path[:-1]:
        content = content[key]
    name = content.get("name") if path and isinstance(content, Mapping) else None
    return name if isinstance(name, str) else None


def _unknown_field(path: Sequence[str | int], known: Mapping[str, frozenset[str]], whose: str | None) -> str:
    if not path:
        return "is not a field of this request"
    name = str(path[-1])
    above = str(path[-2]) if len(path) > 1 else ""
    fields = known.get(above, frozenset())
    if own := _FIELDS_BY_NAME.get((above, whose or "")):
        if name in fields - own:
            return f"is not a field of {whose}, which has {', '.join(sorted(own - {'name'})) or 'none'}"
        fields = own
    if close := difflib.get_close_matches(name, fields, n=1):
        return f"is not a field here; did you mean {close[0]!r}?"
    if elsewhere := sorted(section for section, names in known.items() if section and name in names):
        return f"is not a field here; it belongs into {' or '.join(elsewhere)}"
    return "is not a field here" + (f"; there are {', '.join(sorted(fields))}" if fields else "")
