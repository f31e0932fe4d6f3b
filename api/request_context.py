"""Around every request: an id, one line of log, protective headers, and an answer whatever happens."""

from __future__ import annotations

import re
import time
from uuid import uuid4

import structlog
from anyio import BrokenResourceError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import from_unexpected
from api.problems import problem_response

REQUEST_ID_HEADER = "X-Request-Id"
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")
PROTECTIVE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
_log = structlog.get_logger("api.requests")


class RequestContext:
    """The outermost middleware; nothing raised below it reaches the server before an answer began."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if _ACCEPTED_ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.monotonic()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = request_id
                for name, value in PROTECTIVE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, answer)
            except Exception as error:
                if status:
                    if _is_of_a_reader_gone(error):
                        return
                    raise
                request = Request(scope)
                await problem_response(request, from_unexpected(error))(scope, receive, answer)
            finally:
                _log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    milliseconds=round((time.monotonic() - started) * 1000, 1),
                )


def _is_of_a_reader_gone(error: Exception) -> bool:
    """Whether a stream of events ended because its reader went away while a message was on its way to them.

    FastAPI's own stream between the two then breaks in one of its tasks, which is no fault.
    """
    return isinstance(error, ExceptionGroup) and error.split(BrokenResourceError)[1] is None
