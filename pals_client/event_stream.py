"""Server-sent events of a job, over as many connections as it takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus

import httpx

from pals_client.connection import Connection
from pals_client.errors import ApiError
from pals_client.resources import FINAL_STATUSES, Event
from pals_client.retries import RETRIED_STATUSES

# The service sends a comment every 15 s; when three are missing the connection is dead.
SILENCE_SECONDS = 45.0


@dataclass
class Message:
    """One server-sent event as it came over the wire."""

    id: str = ""
    event: str = ""
    data: list[str] = field(default_factory=list)


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """Put the lines of a `text/event-stream` together (HTML Living Standard, 9.2.6).

    A comment, which says that the service is alive, comes as a message without data.
    """
    message = Message()
    for line in lines:
        if not line:
            if message.data:
                yield message
            message = Message()
            continue
        name, _, value = line.partition(":")
        if not name:
            yield Message()
        value = value.removeprefix(" ")
        if name == "data":
            message.data.append(value)
        elif name == "id":
            message.id = value
        elif name == "event":
            message.event = value


def follow(connection: Connection, job_id: str, after: int) -> Iterator[Event]:
    """Each event above `after` once and in order, until the one that ends the job.

    A connection that breaks or falls silent is opened again where it ended. Raises ApiError, and
    ServiceUnreachable when several in a row bring nothing.
    """
    path = f"/v1/jobs/{job_id}/events/stream"
    failures = 0
    while True:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if after:
            headers["Last-Event-ID"] = str(after)
        refusal: httpx.Response | None = None
        broken: httpx.TransportError | None = None
        try:
            with connection.stream(path, headers=headers, read_seconds=SILENCE_SECONDS) as response:
                if response.status_code == HTTPStatus.NO_CONTENT:
                    return
                if response.is_success:
                    for message in messages(response.iter_lines()):
                        failures = 0
                        if not message.data:
                            continue
                        event: Event = json.loads("\n".join(message.data))
                        if event["id"] <= after:
                            continue
                        after = event["id"]
                        yield event
                        if event["type"] == "state" and event["data"].get("status") in FINAL_STATUSES:
                            return
                else:
                    response.read()
                    refusal = response
        except httpx.TransportError as error:
            broken = error
        failures += 1
        if refusal is not None and (
            refusal.status_code not in RETRIED_STATUSES or failures >= connection.retries.attempts
        ):
            raise ApiError.of(refusal)
        if refusal is None and failures >= connection.retries.attempts:
            connection.give_up(broken)
        connection.retries.pause(failures, refusal)
