"""Requests to one service, sent again when that is safe and may help."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import httpx

from pals_client.errors import ApiError, ServiceUnreachable
from pals_client.retries import RETRIED_STATUSES, Retries, was_not_sent

CONNECT_SECONDS = 5.0
READ_SECONDS = 120.0
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Connection:
    """An HTTP client of one base address. Threads may share it."""

    def __init__(self, base_url: str, retries: Retries) -> None:
        url = httpx.URL(base_url)
        self.base_url = url
        self.retries = retries
        self._http = httpx.Client(
            base_url=url,
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            headers={"User-Agent": "pals-client", "Accept": "application/json"},
            # A proxy for the outside world must not be asked for this very host.
            trust_env=url.host not in LOOPBACK,
        )

    def close(self) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool,
        body: Callable[[], Any] | None = None,
        **options: Any,
    ) -> httpx.Response:
        """Send a request and return its successful answer. Raises ApiError, ServiceUnreachable.

        One that may be sent twice is repeated after a broken connection, 429 and 503; any other only
        when it cannot have arrived. `body` opens the content anew for each attempt.
        """
        failures = 0
        while True:
            try:
                content = body() if body is not None else None
                try:
                    response = self._http.request(method, path, content=content, **options)
                finally:
                    if content is not None:
                        content.close()
            except httpx.TransportError as error:
                failures += 1
                if failures >= self.retries.attempts or not (repeatable or was_not_sent(error)):
                    self.give_up(error)
                self.retries.pause(failures)
                continue
            if response.is_success:
                return response
            failures += 1
            if failures >= self.retries.attempts or not (repeatable and response.status_code in RETRIED_STATUSES):
                raise ApiError.of(response)
            self.retries.pause(failures, response)

    @contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str], read_seconds: float = READ_SECONDS
    ) -> Iterator[httpx.Response]:
        """GET an answer that is read while it arrives, wherever the service sends us for it; one attempt.

        Raises httpx.TransportError.
        """
        timeout = httpx.Timeout(read_seconds, connect=CONNECT_SECONDS)
        with self._http.stream("GET", path, headers=dict(headers), timeout=timeout, follow_redirects=True) as response:
            yield response

    def give_up(self, error: httpx.TransportError | None) -> NoReturn:
        """Raise ServiceUnreachable with the address and the cause."""
        cause = "the answer ends too early" if error is None else str(error) or type(error).__name__
        raise ServiceUnreachable(f"{self.base_url} does not answer: {cause}") from error
