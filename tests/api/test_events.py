from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobstore.lifecycle import JobStatus
from tests.api.conftest import Problem, Server, serving


def parse(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Server-sent events, each checked against its own fields."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            if not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            continue
        if "data" in fields:
            event: dict[str, Any] = json.loads(fields["data"])
            assert fields["id"] == str(event["id"])
            assert fields["event"] == event["type"]
            yield event
        fields = {}


@contextmanager
def watching(server: Server, job_id: str, **headers: str) -> Iterator[Iterator[dict[str, Any]]]:
    url = f"/v1/jobs/{job_id}/events/stream"
    with (
        httpx.Client(base_url=server.http.base_url, timeout=30) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["cache-control"] == "no-cache"
        yield parse(response.iter_lines())


def all_events(server: Server, job_id: str, **headers: str) -> list[dict[str, Any]]:
    with watching(server, job_id, **headers) as events:
        return list(events)


@pytest.fixture
def ended_job(either: Server) -> tuple[Server, str]:
    """A job whose log has seven events."""
    job = either.queue()
    lease = either.claim(job["id"])
    either.say(lease, 1, "one", "two", "three", "four")
    either.end(lease)
    return either, job["id"]


def test_the_log_is_listed_oldest_first_and_page_by_page(ended_job: tuple[Server, str]) -> None:
    server, job_id = ended_job
    url = f"/v1/jobs/{job_id}/events"
    whole = server.http.get(url).json()
    assert [event["id"] for event in whole["data"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [event["type"] for event in whole["data"]] == ["state"] * 2 + ["message"] * 4 + ["state"]
    assert (whole["has_more"], whole["next"]) == (False, None)
    page = server.http.get(url, params={"limit": 3}).json()
    assert (page["data"], page["has_more"], page["next"]) == (whole["data"][:3], True, 3)
    rest = server.http.get(url, params={"after": 3}).json()
    assert rest["data"] == whole["data"][3:]
    assert server.http.get(url, params={"after": 2**63 - 1}).json()["data"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "after=-1", f"after={2**63}", "after=x"])
def test_odd_places_in_the_log_are_refused(ended_job: tuple[Server, str], problem: Problem, query: str) -> None:
    server, job_id = ended_job
    problem(server.http.get(f"/v1/jobs/{job_id}/events?{query}"), 422, "invalid_query")


def test_a_stream_replays_the_log_and_ends_after_the_final_state(ended_job: tuple[Server, str]) -> None:
    server, job_id = ended_job
    streamed = all_events(server, job_id)
    assert streamed == server.http.get(f"/v1/jobs/{job_id}/events").json()["data"]
    assert streamed[-1]["data"]["status"] == "succeeded"


@pytest.mark.parametrize("seen", [0, 1, 6])
def test_a_stream_goes_on_where_the_client_was_cut_off(ended_job: tuple[Server, str], seen: int) -> None:
    server, job_id = ended_job
    assert [event["id"] for event in all_events(server, job_id, **{"Last-Event-ID": str(seen)})] == list(
        range(seen + 1, 8)
    )
    response = server.http.get(f"/v1/jobs/{job_id}/events/stream", params={"after": seen})
    assert [event["id"] for event in parse(iter(response.text.split("\n")))] == list(range(seen + 1, 8))


def test_who_has_seen_everything_is_told_not_to_come_back(ended_job: tuple[Server, str]) -> None:
    server, job_id = ended_job
    for seen in ("7", "1000"):
        response = server.http.get(f"/v1/jobs/{job_id}/events/stream", headers={"Last-Event-ID": seen})
        assert (response.status_code, response.content) == (204, b"")


def test_a_last_event_id_that_is_no_number_is_refused(ended_job: tuple[Server, str], problem: Problem) -> None:
    server, job_id = ended_job
    response = server.http.get(f"/v1/jobs/{job_id}/events/stream", headers={"Last-Event-ID": "x"})
    assert problem(response, 422, "invalid_query")["errors"][0]["parameter"] == "last-event-id"


def test_head_of_a_stream_ends(server: Server) -> None:
    job = server.queue()
    response = server.http.head(f"/v1/jobs/{job['id']}/events/stream")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")


def test_watchers_see_events_as_they_happen(either: Server) -> None:
    server = either
    job = server.queue()
    with watching(server, job["id"]) as early:
        assert next(early)["data"]["status"] == "queued"
        lease = server.claim(job["id"])
        assert next(early)["data"]["status"] == "running"
        with watching(server, job["id"], **{"Last-Event-ID": "1"}) as late:
            assert next(late)["id"] == 2
            server.say(lease, 1, *(str(number) for number in range(2000)))
            server.end(lease)
            seen_early, seen_late = list(early), list(late)
    assert [event["id"] for event in seen_early] == list(range(3, 2004))
    assert seen_late == seen_early
    assert seen_early[-1]["data"]["status"] == "succeeded"


def test_many_watchers_all_see_everything(server: Server) -> None:
    job = server.queue()
    lease = server.claim(job["id"])
    with ThreadPoolExecutor(20) as threads:
        watchers = [threads.submit(all_events, server, job["id"]) for _ in range(20)]
        for number in range(1, 11):
            server.say(lease, number, f"report {number}")
        server.end(lease, JobStatus.FAILED)
        seen = [watcher.result(30) for watcher in watchers]
    assert [event["id"] for event in seen[0]] == list(range(1, 14))
    assert all(events == seen[0] for events in seen)


def test_a_stream_of_a_job_that_is_deleted_ends(server: Server) -> None:
    job = server.queue()
    url = f"/v1/jobs/{job['id']}"
    with watching(server, job["id"]) as events:
        assert next(events)["id"] == 1
        server.http.post(url + "/cancel")
        server.http.delete(url)
        assert [event["id"] for event in events] in ([], [2])


def open_sockets(server: Server) -> int:
    """Connections of the server process, as the kernel counts them."""
    from pathlib import Path

    links = Path(f"/proc/{server.process.pid}/fd")
    count = 0
    for link in links.iterdir():
        try:
            count += "socket:" in str(link.readlink())
        except FileNotFoundError:
            continue
    return count


def test_clients_that_leave_free_everything(server: Server) -> None:
    job = server.queue()
    before = open_sockets(server)
    base = server.http.base_url
    clients = []
    for _ in range(30):
        client = socket.create_connection((base.host, base.port or 80))
        client.sendall(f"GET /v1/jobs/{job['id']}/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        clients.append(client)
    for client in clients:
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    assert open_sockets(server) >= before + 30
    for client in clients:
        client.close()
    deadline = time.monotonic() + 30
    while open_sockets(server) > before:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_server_that_stops_ends_its_streams_and_does_not_wait_for_them(tmp_path: Path, server: Server) -> None:
    with serving(tmp_path) as stopping:
        stopping.table = server.table
        job = stopping.queue()
        with watching(stopping, job["id"]) as events:
            assert next(events)["id"] == 1
            stopping.process.terminate()
            assert list(events) == []
        stopping.process.wait(30)
