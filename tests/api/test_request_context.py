from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from anyio import BrokenResourceError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.request_context import RequestContext
from tests.api.conftest import Server


def test_a_request_id_is_echoed(server: Server) -> None:
    response = server.http.get("/v1/nothing", headers={"X-Request-Id": "trace-7"})
    assert response.headers["x-request-id"] == response.json()["request_id"] == "trace-7"


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "<script>", '"'])
def test_an_odd_request_id_is_replaced(server: Server, given: str) -> None:
    made = server.http.get("/healthz", headers={"X-Request-Id": given}).headers["x-request-id"]
    assert len(made) == 32
    assert made != given


def test_every_answer_is_protected_and_says_nothing_of_the_server(server: Server) -> None:
    for path in ("/healthz", "/v1/nothing", "/docs"):
        headers = server.http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


SCOPE: dict[str, Any] = {
    "type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "query_string": b"", "headers": [],
    "server": ("localhost", 80), "scheme": "http", "root_path": "",
}  # fmt: skip


def sent_by(application: ASGIApp) -> list[Message]:
    """What one request to it is answered."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(RequestContext(application)(SCOPE | {"state": {}}, receive, send))
    return sent


def test_an_unexpected_error_is_a_problem_without_a_trace() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("password=secret")

    sent = sent_by(broken)
    assert sent[0]["status"] == 500
    body = json.loads(sent[1]["body"])
    assert body["code"] == "internal"
    assert "secret" not in sent[1]["body"].decode()


def breaking_off(error: Exception) -> ASGIApp:
    """An application that fails when its answer has begun."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return application


def test_a_stream_whose_reader_goes_away_is_no_fault() -> None:
    gone = ExceptionGroup("tasks", [ExceptionGroup("task", [BrokenResourceError()])])
    assert [message["status"] for message in sent_by(breaking_off(gone))] == [200]


@pytest.mark.parametrize(
    "error", [ExceptionGroup("tasks", [BrokenResourceError(), RuntimeError()]), RuntimeError()], ids=["group", "alone"]
)
def test_any_other_fault_in_the_middle_of_an_answer_is_the_servers_to_log(error: Exception) -> None:
    with pytest.raises(type(error)):
        sent_by(breaking_off(error))


@pytest.mark.parametrize("path", ["/healthz", "/v1/jobs", "/v1/models", "/openapi.json", "/v1/nothing"])
def test_head_answers_like_get_without_a_body(server: Server, path: str) -> None:
    head, get = server.http.head(path), server.http.get(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    assert "x-request-id" in head.headers


def test_a_wrong_method_is_told_the_right_ones(server: Server) -> None:
    assert server.http.put("/v1/jobs").headers["allow"] == "GET, HEAD, POST"
    assert server.http.post("/healthz").headers["allow"] == "GET, HEAD"
    assert server.http.get("/v1/jobs/job_0/cancel").headers["allow"] == "POST"
