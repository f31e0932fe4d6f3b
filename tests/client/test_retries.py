from __future__ import annotations

import socket
import threading

import httpx
import pytest

from pals_client import ApiError, Client, Retries, ServiceUnreachable
from tests.client.conftest import HASTY, Script, answer, cut, hang_up

JOB = b'{"id": "job_1", "status": "queued"}'


def busy(status: int, **headers: str) -> object:
    return answer(status, b'{"code": "busy"}', content_type="application/problem+json", **headers)


@pytest.mark.parametrize("status", [429, 503])
def test_a_reading_call_is_repeated_while_the_service_is_busy(
    script: Script, scripted_client: Client, status: int
) -> None:
    script.answers = [busy(status), busy(status, Retry_After="0"), answer(body=JOB)]  # type: ignore[list-item]

    assert scripted_client.job("job_1")["id"] == "job_1"
    assert [request.path for request in script.requests] == ["/v1/jobs/job_1"] * 3


def test_a_reading_call_is_repeated_after_a_broken_connection(script: Script, scripted_client: Client) -> None:
    script.answers = [hang_up, cut(JOB[:5], promised=len(JOB)), answer(body=JOB)]

    assert scripted_client.job("job_1")["status"] == "queued"


def test_cancelling_and_forecasting_are_repeated_because_that_is_harmless(
    script: Script, scripted_client: Client
) -> None:
    script.answers = [hang_up, answer(202, JOB), hang_up, answer(body=b'{"values": {}}')]

    assert scripted_client.cancel("job_1")["id"] == "job_1"
    assert scripted_client.forecast("ckpt_1")["values"] == {}
    assert [request.method for request in script.requests] == ["POST"] * 4


@pytest.mark.parametrize("failure", [hang_up, busy(503), busy(429)], ids=["broken", "503", "429"])
def test_a_job_is_never_posted_twice(script: Script, scripted_client: Client, failure: object) -> None:
    script.answers = [failure]  # type: ignore[list-item]

    with pytest.raises((ApiError, ServiceUnreachable)):
        scripted_client.create_job("ds_1", {"data": {"horizon": 2}})
    assert len(script.requests) == 1


def test_a_refusal_is_not_repeated(script: Script, scripted_client: Client) -> None:
    script.answers = [answer(404, b'{"code": "not_found"}', content_type="application/problem+json")]

    with pytest.raises(ApiError, match="404 not_found"):
        scripted_client.job("job_1")
    assert len(script.requests) == 1


def test_in_the_end_the_last_refusal_is_raised(script: Script, scripted_client: Client) -> None:
    script.answers = [busy(503)] * HASTY.attempts  # type: ignore[list-item]

    with pytest.raises(ApiError) as refusal:
        scripted_client.job("job_1")
    assert refusal.value.status == 503
    assert len(script.requests) == HASTY.attempts


def test_a_service_that_is_not_there_is_named_after_all_attempts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with (
            Client(url, retries=HASTY) as client,
            pytest.raises(ServiceUnreachable, match=f"{url} does not answer"),
        ):
            client.create_job("ds_1", {})


def test_a_call_that_could_not_be_sent_is_repeated_whatever_it_does(script: Script) -> None:
    """The port opens only after the first attempts were refused."""
    with socket.socket() as late:
        late.bind(("127.0.0.1", 0))
        attempts: list[int] = []

        class ListeningLater(Retries):
            def pause_seconds(self, failures: int, response: httpx.Response | None) -> float:
                attempts.append(failures)
                if failures == 2:
                    late.listen()
                return 0.0

        port = late.getsockname()[1]
        with Client(f"http://127.0.0.1:{port}", retries=ListeningLater(attempts=5)) as client:
            late.settimeout(30)

            def serve() -> None:
                while len(attempts) < 2:
                    threading.Event().wait(0.01)
                connection, _ = late.accept()
                with connection:
                    connection.recv(65536)
                    head = f"HTTP/1.1 202 Accepted\r\nContent-Length: {len(JOB)}\r\n\r\n"
                    connection.sendall(head.encode() + JOB)

            thread = threading.Thread(target=serve)
            thread.start()
            job = client.create_job("ds_1", {})
            thread.join()

    assert job["id"] == "job_1"
    assert attempts == [1, 2]


def test_pauses_double_up_to_the_longest_and_half_of_each_is_chance() -> None:
    retries = Retries(first_pause_seconds=1, longest_pause_seconds=10)
    for failures, longest in enumerate((1, 2, 4, 8, 10, 10), start=1):
        for _ in range(20):
            assert longest / 2 <= retries.pause_seconds(failures, None) <= longest
    assert retries.pause_seconds(10_000, None) <= 10


def test_a_retry_after_decides_the_pause_within_bounds() -> None:
    retries = Retries(first_pause_seconds=1, longest_pause_seconds=10)

    def asking(seconds: str) -> httpx.Response:
        return httpx.Response(503, headers={"Retry-After": seconds})

    assert retries.pause_seconds(1, asking("7")) == 7
    assert retries.pause_seconds(1, asking("3600")) == 10
    assert retries.pause_seconds(1, asking("Wed, 21 Oct 2026 07:28:00 GMT")) <= 1
