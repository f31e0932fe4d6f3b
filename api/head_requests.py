"""HEAD for every path that knows GET: the same headers, no body."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ASKED_AS_HEAD = "pals.asked_as_head"


def wants_body(request: Request) -> bool:
    """False when what looks like a GET came as HEAD."""
    return _ASKED_AS_HEAD not in request.scope


class HeadRequests:
    """Runs HEAD as GET and ends it after the headers; Range has no meaning for HEAD (RFC 9110, 14.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        answered = asyncio.Event()
        asked = False

        async def request_then_end() -> Message:
            # A stream listens for the client's end: told so once its headers are out, it stops.
            nonlocal asked
            if not asked:
                asked = True
                return await receive()
            await answered.wait()
            return {"type": "http.disconnect"}

        async def headers_only(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                answered.set()

        as_get = {**scope, "method": "GET", "headers": headers, _ASKED_AS_HEAD: True}
        await self._app(as_get, request_then_end, headers_only)
