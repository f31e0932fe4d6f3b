"""Request bodies: how large they may be, and that a refusal is read by who still sends one."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_JSON_BYTES = 8 * 1024 * 1024
UPLOAD_PATH = "/v1/datasets"
DRAIN_BYTES = 64 * 1024 * 1024
DRAIN_SECONDS = 5.0


class BodyLimit:
    """Limits every body but uploads, which count their own bytes; drains what a refused client still sends.

    A server that closes a connection with unread bytes resets it, and the client never sees why.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limited = not (scope["method"] == "POST" and scope["path"] == UPLOAD_PATH)
        declared = headers.get("content-length", "")
        started = ended = False
        size = 0

        async def read() -> Message:
            nonlocal started, ended, size
            if limited and declared.isdigit() and int(declared) > MAX_JSON_BYTES:
                raise HTTPException(413, _too_large())
            message = await receive()
            started = True
            ended = message["type"] != "http.request" or not message.get("more_body", False)
            size += len(message.get("body", b""))
            if limited and size > MAX_JSON_BYTES:
                raise HTTPException(413, _too_large())
            return message

        async def answer(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start" and message["status"] >= 400 and not ended:
                ended = True
                # Who waits for "100 Continue" has sent nothing yet and must not be asked to.
                if started or headers.get("expect", "").lower() != "100-continue":
                    await _drain(receive)
            await send(message)

        await self._app(scope, read, answer)


async def _drain(receive: Receive) -> None:
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while size < DRAIN_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def _too_large() -> str:
    return f"The body is larger than {MAX_JSON_BYTES} bytes, which is the most a request other than an upload may have."
