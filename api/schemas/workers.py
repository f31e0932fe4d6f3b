"""Workers as they are shown."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from api.schemas.bodies import ResponseBody, UtcTime
from jobstore.workers import DeviceClass


class WorkerBody(ResponseBody):
    """A living worker process."""

    id: str
    hostname: str
    pid: int
    device_classes: list[DeviceClass]
    slots: int = Field(description="How many jobs it trains at once.")
    jobs: list[str] = Field(description="What it is training.")
    details: dict[str, Any] = Field(description="Its devices and versions.")
    started_at: UtcTime
    seen_at: UtcTime


class WorkerList(ResponseBody):
    data: list[WorkerBody]
