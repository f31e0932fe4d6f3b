"""Workers as they are shown."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from api.schemas.bodies import ResponseBody, UtcTime
from jobstore.workers import DeviceClass


class SlotJob(ResponseBody):
    """The job that a slot trains."""

    id: str
    step: int | None = Field(description="Null until its training begins.")
    total_steps: int | None


class SlotBody(ResponseBody):
    """A worker's place for one training."""

    name: str
    device_classes: list[DeviceClass] = Field(description="Of the jobs that it takes.")
    threads: int = Field(description="CPU threads of a training.")
    gpu: str | None = Field(description="As CUDA_VISIBLE_DEVICES names it; null on the CPU.")
    job: SlotJob | None


class WorkerBody(ResponseBody):
    """A living worker process."""

    id: str
    hostname: str
    pid: int
    slots: list[SlotBody]
    details: dict[str, Any] = Field(description="What it found on its host: processor, memory, GPUs, versions.")
    started_at: UtcTime
    seen_at: UtcTime


class WorkerList(ResponseBody):
    data: list[WorkerBody]
