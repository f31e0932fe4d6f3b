"""Models and methods as the catalogue shows them, generated from their specs."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field

from api.schemas.bodies import ResponseBody
from pals_core.spec import FrozenSpec

_ARXIV = re.compile(r"\s*\(arXiv (\d{4}\.\d{5})\)")
# What JSON Schema says about a field's range.
_RANGE_KEYWORDS = (
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "multipleOf",
    "minItems",
    "maxItems",
    "enum",
)


class FieldBody(ResponseBody):
    """One field of a spec."""

    name: str
    type: str
    default: Any = Field(description="Null where it depends on the data.")
    range: dict[str, Any] = Field(description="JSON Schema keywords that bound it.")
    description: str


class CatalogueEntry(ResponseBody):
    """One model or method."""

    name: str
    description: str
    source: str | None = Field(description="The paper it comes from.")
    fields: list[FieldBody]


class Catalogue(ResponseBody):
    data: list[CatalogueEntry]


def catalogue(specs: tuple[type[FrozenSpec], ...]) -> Catalogue:
    """The catalogue of a union of specs."""
    return Catalogue(data=[_entry(spec) for spec in specs])


def _entry(spec: type[FrozenSpec]) -> CatalogueEntry:
    schema = spec.model_json_schema()
    description = " ".join((spec.__doc__ or "").split())
    paper = _ARXIV.search(description)
    return CatalogueEntry(
        name=spec.model_fields["name"].default,
        description=_ARXIV.sub("", description),
        source=f"https://arxiv.org/abs/{paper[1]}" if paper else None,
        fields=[
            _field(name, _plain(body, schema.get("$defs", {})))
            for name, body in schema["properties"].items()
            if name != "name"
        ],
    )


def _plain(body: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The field with its reference followed and its optional type unfolded."""
    for option in (body, *body.get("anyOf", ())):
        if "$ref" in option:
            return {**definitions[option["$ref"].rpartition("/")[2]], **body}
        if option.get("type") not in {None, "null"}:
            return {**option, **body}
    return body


def _field(name: str, body: dict[str, Any]) -> FieldBody:
    return FieldBody(
        name=name,
        type=body["type"],
        default=body.get("default"),
        range={keyword: body[keyword] for keyword in _RANGE_KEYWORDS if keyword in body},
        description=body.get("description", ""),
    )
