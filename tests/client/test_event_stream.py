from __future__ import annotations

import json
from typing import Any

import pytest

from pals_client import ApiError, Client, ServiceUnreachable
from pals_client.event_stream import messages
from tests.client.conftest import HASTY, Script, answer, cut, hang_up


def event(number: int, **data: Any) -> dict[str, Any]:
    kind = "state" if data else "message"
    return {"id": number, "type": kind, "message": f"event {number}", "data": data}


def lines(*events: dict[str, Any]) -> bytes:
    return b"".join(f"id: {one['id']}\nevent: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events)


def stream(*events: dict[str, Any], comment: bytes = b"") -> Any:
    return answer(body=comment + lines(*events), content_type="text/event-stream")


def torn(*events: dict[str, Any], rest: bytes = b"") -> Any:
    body = lines(*events) + rest
    return cut(body, promised=len(body) + 100, Content_Type="text/event-stream")


def numbers(client: Client, after: int = 0) -> list[int]:
    return [one["id"] for one in client.events("job_1", after=after)]


FINAL = event(4, status="succeeded")


# --- the format -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "found"),
    [
        (["data: a", ""], [("", "", ["a"])]),
        (["id: 7", "event: state", "data: a", "data: b", ""], [("7", "state", ["a", "b"])]),
        (["data:a", "", "data:  b", ""], [("", "", ["a"]), ("", "", [" b"])]),
        (["event: state", ""], []),
        (["retry: 100", "unknown: x", "data: a", ""], [("", "", ["a"])]),
        ([": ping", "", "data: a", ""], [("", "", []), ("", "", ["a"])]),
        (["data: torn"], []),
    ],
)
def test_lines_become_messages(wire: list[str], found: list[tuple[str, str, list[str]]]) -> None:
    assert [(message.id, message.event, message.data) for message in messages(wire)] == found


# --- connections ------------------------------------------------------------------------------------


def test_a_stream_is_read_to_the_final_state(script: Script, scripted_client: Client) -> None:
    script.answers = [stream(event(1), event(2), event(3), FINAL)]

    assert numbers(scripted_client) == [1, 2, 3, 4]
    [request] = script.requests
    assert request.path == "/v1/jobs/job_1/events/stream"
    assert "last-event-id" not in request.headers


def test_a_broken_stream_goes_on_after_the_last_whole_event(script: Script, scripted_client: Client) -> None:
    script.answers = [
        torn(event(1), event(2), rest=b'id: 3\nevent: message\ndata: {"id": 3, "ty'),
        hang_up,
        torn(event(3)),
        stream(FINAL),
    ]

    assert numbers(scripted_client) == [1, 2, 3, 4]
    assert [request.headers.get("last-event-id") for request in script.requests] == [None, "2", "2", "3"]


def test_a_stream_that_ends_before_the_job_does_is_opened_again(script: Script, scripted_client: Client) -> None:
    script.answers = [stream(event(1)), stream(event(2), event(3)), stream(FINAL)]

    assert numbers(scripted_client) == [1, 2, 3, 4]


def test_events_that_come_again_are_passed_over(script: Script, scripted_client: Client) -> None:
    script.answers = [torn(event(1), event(2)), stream(event(1), event(2), event(3), FINAL)]

    assert numbers(scripted_client) == [1, 2, 3, 4]


def test_reading_can_start_in_the_middle(script: Script, scripted_client: Client) -> None:
    script.answers = [stream(event(3), FINAL)]

    assert numbers(scripted_client, after=2) == [3, 4]
    assert script.requests[0].headers["last-event-id"] == "2"


def test_a_job_that_has_ended_and_was_read_to_its_end_has_nothing_more(script: Script, scripted_client: Client) -> None:
    script.answers = [answer(204, b"")]

    assert numbers(scripted_client, after=4) == []


def test_a_state_on_the_way_does_not_end_the_stream(script: Script, scripted_client: Client) -> None:
    script.answers = [stream(event(1, status="queued"), event(2, status="running"), event(3, status="queued"), FINAL)]

    assert numbers(scripted_client) == [1, 2, 3, 4]


def test_a_quiet_stream_that_is_cut_every_so_often_is_not_given_up(script: Script, scripted_client: Client) -> None:
    quiet = [stream(comment=b": ping\n\n")] * (3 * HASTY.attempts)
    script.answers = [*quiet, stream(FINAL)]

    assert numbers(scripted_client) == [4]


def test_streams_that_bring_nothing_are_given_up(script: Script, scripted_client: Client) -> None:
    script.answers = [answer(body=b"", content_type="text/event-stream")] * HASTY.attempts

    with pytest.raises(ServiceUnreachable, match="ends too early"):
        numbers(scripted_client)
    assert len(script.requests) == HASTY.attempts


def test_connections_that_all_break_are_given_up(script: Script, scripted_client: Client) -> None:
    script.answers = [hang_up] * HASTY.attempts

    with pytest.raises(ServiceUnreachable):
        numbers(scripted_client)


def test_a_busy_service_is_asked_again_and_a_refusal_is_raised(script: Script, scripted_client: Client) -> None:
    refusal = answer(404, b'{"code": "not_found"}', content_type="application/problem+json")
    script.answers = [answer(503, b""), refusal]

    with pytest.raises(ApiError, match="404 not_found"):
        numbers(scripted_client)


def test_waiting_hears_each_event_and_returns_the_job(script: Script, scripted_client: Client) -> None:
    script.answers = [torn(event(1)), stream(event(2), event(3), FINAL), answer(body=b'{"status": "succeeded"}')]
    heard: list[int] = []

    job = scripted_client.wait("job_1", on_event=lambda one: heard.append(one["id"]))
    assert (heard, job["status"]) == ([1, 2, 3, 4], "succeeded")
