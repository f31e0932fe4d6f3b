"""Liveness and readiness."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.bodies import ResponseBody
from api.schemas.workers import WorkerBody


class Live(ResponseBody):
    status: Literal["live"] = "live"


class Part(ResponseBody):
    """One thing the service needs."""

    ready: bool
    message: str


class Ready(ResponseBody):
    status: Literal["ready"] = "ready"
    parts: dict[str, Part]
    workers: list[WorkerBody] = Field(description="The living ones, and what each is training.")
