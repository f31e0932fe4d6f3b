from __future__ import annotations

import json

import pytest

from pals_client import ApiError, Client, ClientError, DatasetInvalid, DownloadCorrupted, ServiceUnreachable
from tests.client.conftest import Script, answer

PROBLEM = {
    "type": "urn:pals:problem:invalid_spec",
    "title": "The training spec does not fit the dataset",
    "status": 422,
    "detail": "The job cannot run.",
    "instance": "/v1/jobs",
    "code": "invalid_spec",
    "errors": [
        {"pointer": "/spec/data/horizon", "message": "at most 40 fits"},
        {"pointer": None, "message": "a value is missing", "row": 7, "column": "load"},
    ],
    "request_id": "req-1",
}


def test_a_refusal_carries_every_field_of_the_problem_and_reads_well(script: Script, scripted_client: Client) -> None:
    script.answers = [answer(422, json.dumps(PROBLEM).encode(), content_type="application/problem+json")]
    with pytest.raises(ApiError) as refusal:
        scripted_client.create_job("ds_1", {})

    error = refusal.value
    assert (error.status, error.code, error.title) == (422, "invalid_spec", PROBLEM["title"])
    assert (error.detail, error.errors, error.request_id) == (PROBLEM["detail"], PROBLEM["errors"], "req-1")
    assert str(error).splitlines() == [
        "422 invalid_spec: The job cannot run.",
        "  /spec/data/horizon: at most 40 fits",
        "  row 7, column load: a value is missing",
    ]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"<html>Bad gateway</html>", "text/html"), (b"{torn", "application/problem+json"), (b"[]", "application/json")],
)
def test_an_answer_that_is_no_problem_document_keeps_its_status(
    script: Script, scripted_client: Client, body: bytes, content_type: str
) -> None:
    script.answers = [answer(502, body, content_type=content_type)]
    with pytest.raises(ApiError) as refusal:
        scripted_client.job("job_1")

    assert (refusal.value.status, refusal.value.code) == (502, "unknown")
    assert str(refusal.value) == "502 unknown: Bad Gateway"


def test_a_dataset_that_turns_out_unusable_is_raised_with_its_places(script: Script, scripted_client: Client) -> None:
    dataset = {
        "id": "ds_1",
        "status": "invalid",
        "error": {
            "code": "invalid_table",
            "message": "no time column",
            "errors": [{"message": "no such day", "row": 9, "column": None}],
        },
    }
    script.answers = [
        answer(202, json.dumps({**dataset, "status": "auditing", "error": None}).encode()),
        answer(200, json.dumps(dataset).encode()),
    ]
    with pytest.raises(DatasetInvalid) as refusal:
        scripted_client.upload_dataset(b"x")

    assert refusal.value.dataset["id"] == "ds_1"
    assert str(refusal.value).splitlines() == ["dataset ds_1: no time column", "  row 9: no such day"]


def test_one_base_catches_everything_the_client_raises() -> None:
    for error in (ApiError, ServiceUnreachable, DatasetInvalid, DownloadCorrupted):
        assert issubclass(error, ClientError)
