"""Liveness and readiness."""

from __future__ import annotations

from typing import Literal

from api.schemas.bodies import ResponseBody


class Live(ResponseBody):
    status: Literal["live"] = "live"


class Part(ResponseBody):
    """One thing the service needs."""

    ready: bool
    message: str


class Ready(ResponseBody):
    status: Literal["ready"] = "ready"
    parts: dict[str, Part]
