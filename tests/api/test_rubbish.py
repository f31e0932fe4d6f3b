"""Bad input of every kind: each gets its status, its code, and a pointer to where it is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.api.conftest import SMALL, Problem, Server

JSON = {"Content-Type": "application/json"}
HUGE = 9 * 1024 * 1024


@pytest.fixture(scope="module")
def dataset_id(server: Server) -> str:
    identifier: str = server.upload()["id"]
    return identifier


@pytest.fixture(scope="module")
def postgres_dataset_id(postgres_server_api: Server) -> str:
    identifier: str = postgres_server_api.upload()["id"]
    return identifier


def spec(**parts: Any) -> dict[str, Any]:
    """The small spec with some of its parts' fields replaced."""
    changed: dict[str, Any] = {part: dict(fields) for part, fields in SMALL.items()}
    for part, fields in parts.items():
        if isinstance(fields, dict) and part in {"data", "training"}:
            changed[part] = changed.get(part, {}) | fields
        else:
            changed[part] = fields
    return {"spec": changed}


# Fields of a job, and the pointer at what is wrong with them.
BAD_JOBS: list[tuple[dict[str, Any], str]] = [
    (spec(data={"horizon": 0}), "/spec/data/horizon"),
    (spec(data={"horizon": "many"}), "/spec/data/horizon"),
    (spec(data={"horizon": 2.5}), "/spec/data/horizon"),
    (spec(data={"horizon": None}), "/spec/data/horizon"),
    (spec(data={"horizon": 5000}), "/spec/data/horizon"),
    (spec(data={"horizon": 10**30}), "/spec/data/horizon"),
    (spec(data={"horizn": 4}), "/spec/data/horizn"),
    (spec(data={"input_len": 1}), "/spec/data/input_len"),
    (spec(data={"input_len": 90_000}), "/spec/data/input_len"),
    (spec(data={"label_len": 13}), "/spec/data"),
    (spec(data={"targets": []}), "/spec/data/targets"),
    (spec(data={"targets": ["nope"]}), "/spec/data/targets/0"),
    (spec(data={"targets": ["calm", "no\0pe"]}), "/spec/data/targets/1"),
    (spec(data={"targets": ["calm", "\ud800"]}), "/spec/data/targets/1"),
    (spec(data={"targets": ["calm", "calm"]}), "/spec/data"),
    (spec(data={"targets": "calm"}), "/spec/data/targets"),
    (spec(data={"targets": ["calm"], "known_future": ["calm"]}), "/spec/data"),
    (spec(data={"known_future": ["calm", "calm"]}), "/spec/data"),
    (spec(data={"known_future": ["calm", "nope"]}), "/spec/data/known_future/1"),
    (spec(data={"known_future": ["calm", "rising", "noise"]}), "/spec/data/known_future"),
    (spec(data={"known_future": ["calm"]}, model="dlinear"), "/spec/data/known_future"),
    (spec(data={"known_future": ["no\0pe"]}), "/spec/data/known_future/0"),
    (spec(data={"series": "apart"}), "/spec/data/series"),
    (spec(data={"series": "pooled", "horizon": 40}), "/spec/data/horizon"),
    (spec(data={"resample": "h"}), "/spec/data/resample/frequency"),
    (spec(data={"resample": "D"}), "/spec/data/resample/frequency"),
    (spec(data={"resample": "fortnight"}), "/spec/data/resample/frequency"),
    (spec(data={"resample": {"frequency": "W", "aggregation": "median"}}), "/spec/data/resample/aggregation"),
    (spec(data={"resample": {"frequency": "W\0"}}), "/spec/data/resample/frequency"),
    (spec(data={"resample": 7}), "/spec/data/resample"),
    (spec(data={"resample": "MS"}), "/spec/data/input_len"),
    (spec(data={"missing": "wish"}), "/spec/data/missing"),
    (spec(data={"split": {"train": 0.9, "validation": 0.9, "test": 0.9}}), "/spec/data/split"),
    (spec(data={"split": {"train": 0.7, "validation": 0.1, "test": -0.2}}), "/spec/data/split/test"),
    (spec(data={"split": {"train": 1000, "validation": 1000, "test": 1000}}), "/spec/data/split"),
    (spec(data={"split": {"trian": 0.7}}), "/spec/data/split/trian"),
    (spec(data="wide"), "/spec/data"),
    (spec(model="oracle"), "/spec/model"),
    (spec(model={"name": "oracle"}), "/spec/model"),
    (spec(model={"d_model": 16}), "/spec/model"),
    (spec(model=7), "/spec/model"),
    (spec(model={"name": "nstransformer", "d_model": 17}), "/spec/model/d_model"),
    (spec(model={"name": "nstransformer", "d_model": 16, "heads": 3}), "/spec/model"),
    (spec(model={"name": "nstransformer", "dropout": 1}), "/spec/model/dropout"),
    (spec(model={"name": "nstransformer", "projector_hidden": [32, 0]}), "/spec/model/projector_hidden/1"),
    (spec(model={"name": "dlinear", "d_model": 16}), "/spec/model/d_model"),
    (spec(model={"name": "dlinear", "moving_avg": 24}), "/spec/model/moving_avg"),
    (spec(method="magic"), "/spec/method"),
    (spec(method={"name": "pals", "loss_tolerance": 0.5}), "/spec/method/loss_tolerance"),
    (spec(method={"name": "pals", "min_sparsity": 0.9, "max_sparsity": 0.1}), "/spec/method"),
    (spec(method={"name": "pals", "epochs": 3}), "/spec/method/epochs"),
    (spec(training={"epochs": -1}), "/spec/training/epochs"),
    (spec(training={"learning_rate": float("nan")}), "/spec/training/learning_rate"),
    (spec(training={"learning_rate": float("inf")}), "/spec/training/learning_rate"),
    (spec(training={"device": "tpu"}), "/spec/training/device"),
    (spec(training={"seed": 2**64}), "/spec/training/seed"),
    (spec(training={"batch_size": 60_000}), "/spec/training/batch_size"),
    (spec(optimiser="adam"), "/spec/optimiser"),
    ({"spec": None}, "/spec"),
    ({"spec": {"data": {}}}, "/spec/data/horizon"),
    ({"spec": []}, "/spec"),
    ({"dataset_id": ""}, "/dataset_id"),
    ({"dataset_id": 5}, "/dataset_id"),
    ({"dataset_id": "ds_" + "0" * 100}, "/dataset_id"),
    ({"dataset_id": "ds_\0"}, "/dataset_id"),
    ({"name": "x" * 201}, "/name"),
    ({"name": "a\0b"}, "/name"),
    ({"name": "\udfff"}, "/name"),
    ({"limits": {"max_memory_bytes": 0}}, "/limits/max_memory_bytes"),
    ({"limits": {"max_memory_bytes": 2**70}}, "/limits/max_memory_bytes"),
    ({"limits": {"max_runtime_seconds": 0}}, "/limits/max_runtime_seconds"),
    ({"limits": {"max_runtime_seconds": float("nan")}}, "/limits/max_runtime_seconds"),
    ({"limits": {"max_attempts": 0}}, "/limits/max_attempts"),
    ({"limits": {"max_atempts": 1}}, "/limits/max_atempts"),
    ({"priority": 101}, "/priority"),
    ({"priority": "high"}, "/priority"),
    ({"dense_twin": True}, "/dense_twin"),
    ({"metadata": {str(number): "x" for number in range(17)}}, "/metadata"),
    ({"metadata": {"team": 5}}, "/metadata/team"),
    ({"metadata": {"team": "x" * 513}}, "/metadata/team"),
    ({"metadata": {"te/am~": "a\0"}}, "/metadata/te~1am~0"),
    ({"metadata": {"a\0": "x"}}, "/metadata"),
    ({"metadata": {'say "hi"': "x"}}, '/metadata/say "hi"'),
    ({"metadata": ["team"]}, "/metadata"),
    ({"colour": "red"}, "/colour"),
]


@pytest.mark.parametrize(("fields", "pointer"), BAD_JOBS, ids=[json.dumps(fields)[:60] for fields, _ in BAD_JOBS])
def test_a_bad_job_is_refused_where_it_is_wrong(
    server: Server, dataset_id: str, problem: Problem, fields: dict[str, Any], pointer: str
) -> None:
    text = json.dumps({"dataset_id": dataset_id, "spec": SMALL} | fields)
    response = server.http.post("/v1/jobs", content=text, headers=JSON)
    body = problem(response, 422, response.json()["code"])
    assert body["code"] in {"invalid_request", "invalid_spec"}
    assert pointer in [error["pointer"] for error in body["errors"]], body["errors"]
    assert all(error["message"] for error in body["errors"])


@pytest.mark.parametrize("validate_only", ["true", "false"])
def test_no_text_makes_postgresql_fail(
    postgres_server_api: Server, postgres_dataset_id: str, validate_only: str
) -> None:
    for fields, _ in BAD_JOBS:
        text = json.dumps({"dataset_id": postgres_dataset_id, "spec": SMALL} | fields)
        response = postgres_server_api.http.post(f"/v1/jobs?validate_only={validate_only}", content=text, headers=JSON)
        assert response.status_code == 422, (fields, response.text)


@dataclass(frozen=True)
class Bad:
    """A request, and how it is refused."""

    method: str
    path: str
    status: int
    code: str
    parameter: str | None = None
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


JOB = "job_0199c2f4a1b20123456789abcdef"
CSV = {"Content-Type": "text/csv"}
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
BAD_REQUESTS = [
    Bad("GET", "/v1/nothing", 404, "not_found"),
    Bad("GET", "/v1/jobs/", 404, "not_found"),
    Bad("GET", "/v1//jobs", 404, "not_found"),
    Bad("PUT", "/v1/jobs", 405, "method_not_allowed"),
    Bad("DELETE", "/v1/datasets", 405, "method_not_allowed"),
    Bad("OPTIONS", "/v1/jobs", 405, "method_not_allowed"),
    Bad("BREW", "/v1/jobs", 405, "method_not_allowed"),
    # bodies
    Bad("POST", "/v1/jobs", 422, "invalid_request"),
    Bad("POST", "/v1/jobs", 415, "unsupported_media_type", content=b"{}"),
    Bad("POST", "/v1/jobs", 415, "unsupported_media_type", content=b"{}", headers={"Content-Type": "text/plain"}),
    Bad("POST", "/v1/jobs", 415, "unsupported_media_type", content=b"{}", headers=FORM),
    Bad("POST", "/v1/jobs", 400, "malformed_json", content=b"{", headers=JSON),
    Bad("POST", "/v1/jobs", 400, "malformed_json", content=b'{"a": }', headers=JSON),
    Bad("POST", "/v1/jobs", 400, "malformed_json", content=b"\xff\xfe\xfd", headers=JSON),
    Bad("POST", "/v1/jobs", 400, "malformed_json", content=b"[" * 100_000, headers=JSON),
    Bad("POST", "/v1/jobs", 400, "malformed_json", content=b'{"a": ' + b"1" * 5000 + b"}", headers=JSON),
    Bad("POST", "/v1/jobs", 422, "invalid_request", content=b"[" * 50 + b"]" * 50, headers=JSON),
    Bad("POST", "/v1/jobs", 422, "invalid_request", content=b"null", headers=JSON),
    Bad("POST", "/v1/jobs", 422, "invalid_request", content=b"7", headers=JSON),
    Bad("POST", "/v1/jobs", 422, "invalid_request", content=b'"job"', headers=JSON),
    Bad("POST", "/v1/jobs", 422, "invalid_request", content=b"[]", headers=JSON),
    Bad("POST", "/v1/jobs", 422, "invalid_request", content=b"{}", headers=JSON),
    Bad("POST", "/v1/jobs", 413, "body_too_large", content=b" " * HUGE, headers=JSON),
    # identifiers
    Bad("GET", "/v1/jobs/nope", 404, "not_found"),
    Bad("GET", f"/v1/jobs/{JOB}", 404, "not_found"),
    Bad("GET", f"/v1/jobs/{JOB}%00", 404, "not_found"),
    Bad("GET", f"/v1/jobs/{JOB}%0a", 404, "not_found"),
    Bad("GET", "/v1/jobs/%ff%fe", 404, "not_found"),
    Bad("GET", "/v1/jobs/" + "x" * 5000, 404, "not_found"),
    Bad("GET", "/v1/jobs/..%2f..%2fetc%2fpasswd", 404, "not_found"),
    Bad("DELETE", f"/v1/jobs/{JOB}", 404, "not_found"),
    *(Bad("POST", f"/v1/jobs/{JOB}/{what}", 404, "not_found") for what in ("cancel", "pause", "resume", "retry")),
    Bad("GET", f"/v1/jobs/{JOB}/events", 404, "not_found"),
    Bad("GET", f"/v1/jobs/{JOB}/events/stream", 404, "not_found"),
    Bad("GET", f"/v1/jobs/{JOB}/metrics", 404, "not_found"),
    Bad("GET", f"/v1/jobs/{JOB}/checkpoints", 404, "not_found"),
    Bad("GET", "/v1/datasets/ds_0", 404, "not_found"),
    Bad("GET", "/v1/datasets/%F0%9F%92%A9", 404, "not_found"),
    Bad("GET", "/v1/datasets/ds_0/content", 404, "not_found"),
    Bad("DELETE", "/v1/datasets/ds_0", 404, "not_found"),
    Bad("GET", "/v1/checkpoints/ckpt_0", 404, "not_found"),
    Bad("GET", "/v1/checkpoints/ckpt_0/content", 404, "not_found"),
    Bad("DELETE", "/v1/checkpoints/ckpt_0", 404, "not_found"),
    Bad("POST", "/v1/checkpoints/ckpt_0/forecasts", 404, "not_found"),
    # parameters
    Bad("GET", "/v1/jobs?limit=0", 422, "invalid_query", "limit"),
    Bad("GET", "/v1/jobs?limit=101", 422, "invalid_query", "limit"),
    Bad("GET", "/v1/jobs?limit=x", 422, "invalid_query", "limit"),
    Bad("GET", f"/v1/jobs?limit={'9' * 5000}", 422, "invalid_query", "limit"),
    Bad("GET", "/v1/jobs?after=%00", 422, "invalid_query", "after"),
    Bad("GET", "/v1/jobs?after=' OR 1=1 --", 422, "invalid_query", "after"),
    Bad("GET", "/v1/jobs?status=happy", 422, "invalid_query", "status"),
    Bad("GET", "/v1/jobs?model=oracle", 422, "invalid_query", "model"),
    Bad("GET", "/v1/jobs?method=%00", 422, "invalid_query", "method"),
    Bad("GET", "/v1/jobs?dataset_id=%00", 422, "invalid_query", "dataset_id"),
    Bad("GET", "/v1/jobs?statsu=queued", 422, "invalid_query", "statsu"),
    Bad("GET", "/v1/jobs?metadata.=x", 422, "invalid_query", "metadata."),
    Bad("GET", "/v1/jobs?metadata.team=%00", 422, "invalid_query", "metadata.team"),
    Bad("GET", "/v1/jobs?metadata.%22=x", 422, "invalid_query", 'metadata."'),
    Bad("GET", "/v1/datasets?after=x", 422, "invalid_query", "after"),
    Bad("GET", "/v1/datasets?metadata.team=x", 422, "invalid_query", "metadata.team"),
    Bad("POST", "/v1/jobs?validate_only=perhaps", 422, "invalid_request", content=b"{}", headers=JSON),
    # uploads
    Bad("POST", "/v1/datasets", 422, "invalid_table"),
    Bad("POST", "/v1/datasets", 415, "unsupported_media_type", content=b"{}", headers=JSON),
    Bad("POST", "/v1/datasets", 415, "unsupported_media_type", content=b"x", headers={"Content-Type": "image/png"}),
    Bad(
        "POST", "/v1/datasets", 415, "unsupported_media_type", content=b"x", headers=CSV | {"Content-Encoding": "br"}
    ),
    Bad("POST", "/v1/datasets?name=" + "x" * 201, 422, "invalid_query", "name", b"a", CSV),
    Bad("POST", "/v1/datasets?name=%00", 422, "invalid_query", "name", b"a", CSV),
    Bad("POST", "/v1/datasets?name=a%0d%0ab", 422, "invalid_query", "name", b"a", CSV),
    Bad("POST", "/v1/datasets", 400, "malformed_multipart", None, b"a", {"Content-Type": "multipart/form-data"}),
    Bad("POST", "/v1/datasets", 400, "malformed_multipart", None, b"", FORM),
    Bad("POST", "/v1/datasets", 400, "malformed_multipart", None, b"no form", FORM),
    Bad("POST", "/v1/datasets", 400, "malformed_multipart", None, b"--x--\r\n", FORM),
    Bad(
        "POST", "/v1/datasets", 400, "malformed_multipart", None,
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ndate,a\n2026-01-01,1\n', FORM,
    ),
    Bad(
        "POST", "/v1/datasets", 400, "malformed_multipart", None,
        b'--x\r\nContent-Disposition: form-data; name="data"\r\n\r\ndate,a\n\r\n--x--\r\n', FORM,
    ),
    Bad(
        "POST", "/v1/datasets", 400, "malformed_multipart", None,
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\na\r\n' * 2 + b"--x--\r\n", FORM,
    ),
    Bad("POST", "/v1/datasets", 400, "malformed_multipart", None, b"--x\r\n" + b"A" * 200_000, FORM),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_REQUESTS, ids=[f"{bad.method} {bad.path[:50]} {bad.code}" for bad in BAD_REQUESTS])
def test_a_bad_request_is_refused(server: Server, problem: Problem, bad: Bad) -> None:
    response = server.http.request(bad.method, bad.path, content=bad.content, headers=bad.headers)
    body = problem(response, bad.status, bad.code)
    if bad.parameter is not None:
        assert bad.parameter in [error.get("parameter") for error in body["errors"]]
        assert all(error["pointer"] is None for error in body["errors"])


def test_none_of_them_makes_postgresql_fail(postgres_server_api: Server) -> None:
    for bad in BAD_REQUESTS:
        response = postgres_server_api.http.request(bad.method, bad.path, content=bad.content, headers=bad.headers)
        assert response.status_code == bad.status, (bad, response.text)


def test_hints_name_what_was_meant(server: Server, dataset_id: str) -> None:
    def messages(**parts: Any) -> str:
        text = json.dumps({"dataset_id": dataset_id} | spec(**parts))
        return server.http.post("/v1/jobs", content=text, headers=JSON).text

    assert "did you mean 'horizon'?" in messages(data={"horizn": 4})
    assert "it belongs into training" in messages(model={"name": "dlinear", "epochs": 3})
    assert "must be one of transformer, nstransformer, informer" in messages(model="oracle")
    assert "did you mean 'calm'?" in messages(data={"targets": ["clam"]})


@pytest.mark.parametrize(
    ("path", "body", "hint"),
    [
        ("jobs", {"horizon": 24}, "is not a field here; it belongs into data"),
        ("jobs", {"limit": {}}, "is not a field here; did you mean 'limits'?"),
        ("checkpoints/ckp_0/forecasts", {"spec": {}}, "is not a field here; there are dataset_id, future, horizon,"),
        ("checkpoints/ckp_0/forecasts", {"future": {"value": {}}}, "is not a field here; did you mean 'values'?"),
    ],
)
def test_hints_are_of_the_body_that_the_route_takes(server: Server, path: str, body: Any, hint: str) -> None:
    answer = server.http.post(f"/v1/{path}", json={"dataset_id": "ds_0"} | body).json()
    assert [error["message"] for error in answer["errors"] if error["message"].startswith(hint)] != []
