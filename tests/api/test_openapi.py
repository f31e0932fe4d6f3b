from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from api.app import create_app
from api.schemas.forecasts import ForecastRequest
from api.schemas.jobs import JobRequest
from tests.api.conftest import Server


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.http.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_operation_tells_how_it_refuses(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert "422" not in operation["responses"], name
        for status in ("4XX", "5XX"):
            content = operation["responses"][status]["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, name
        assert operation["description"], name
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for inner in value.values() for found in references(inner)]
        return [found for inner in value for found in references(inner)] if isinstance(value, list) else []

    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas


@pytest.mark.parametrize("model", [JobRequest, ForecastRequest])
def test_every_body_has_examples_that_are_valid(document: dict[str, Any], model: type[Any]) -> None:
    examples = document["components"]["schemas"][model.__name__]["examples"]
    assert examples
    for example in examples:
        TypeAdapter(model).validate_python(example)


def test_every_body_is_documented(document: dict[str, Any]) -> None:
    bodies = {name for name, operation in operations(document) if "requestBody" in operation}
    assert bodies == {"post /v1/datasets", "post /v1/jobs", "post /v1/checkpoints/{checkpoint_id}/forecasts"}
    upload = document["paths"]["/v1/datasets"]["post"]["requestBody"]["content"]
    assert {"text/csv", "multipart/form-data", "application/vnd.apache.parquet"} <= set(upload)


def test_the_documentation_is_served(server: Server) -> None:
    assert server.http.get("/docs").status_code == 200


def test_an_application_opens_nothing_before_it_starts() -> None:
    assert create_app().openapi()["info"]["title"] == "PALS"


def test_the_catalogue_tells_every_field_with_default_range_and_source(server: Server) -> None:
    models = {entry["name"]: entry for entry in server.http.get("/v1/models").json()["data"]}
    assert {"nstransformer", "informer", "fedformer", "patchtst", "dlinear"} <= set(models)
    assert models["nstransformer"]["source"] == "https://arxiv.org/abs/2205.14415"
    fields = {field["name"]: field for field in models["nstransformer"]["fields"]}
    assert (fields["d_model"]["type"], fields["d_model"]["default"]) == ("integer", 512)
    assert fields["d_model"]["range"] == {"minimum": 2, "maximum": 8192, "multipleOf": 2}
    fields = {field["name"]: field for field in models["fedformer"]["fields"]}
    assert fields["mode_select"]["range"]["enum"] == ["random", "lowest"]
    methods = {entry["name"]: entry for entry in server.http.get("/v1/methods").json()["data"]}
    assert set(methods) == {"pals", "dense", "granet", "gmp", "rigl", "set", "static"}
    assert methods["pals"]["source"] == "https://arxiv.org/abs/2305.18382"
    fields = {field["name"]: field for field in methods["pals"]["fields"]}
    assert fields["update_interval"]["type"] == "integer"
    assert fields["update_interval"]["default"] is None
    assert fields["initial_allocation"]["range"]["enum"] == ["erk", "uniform"]
    for entry in [*models.values(), *methods.values()]:
        assert entry["description"]
        assert all(field["description"] and field["type"] for field in entry["fields"])
