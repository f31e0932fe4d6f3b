"""Checkpoints as they are shown."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from api.schemas.bodies import ResponseBody, UtcTime
from jobstore.tables import Artifact, Checkpoint


class CheckpointUrls(ResponseBody):
    content: str
    forecasts: str


class CheckpointBody(ResponseBody):
    """A downloadable sparse model."""

    id: str
    job_id: str
    created_at: UtcTime
    step: int
    epoch: int
    is_best: bool = Field(description="Lowest validation loss among epochs that reached the least sparsity.")
    is_last: bool
    sparsity: float = Field(description="Share of maskable weights that are off.")
    validation_loss: float
    metrics: dict[str, Any] | None = Field(description="Test errors, once the training ended; of the best one alone.")
    bytes: int | None
    sha256: str | None = Field(description="Of the downloaded file; also its ETag.")
    urls: CheckpointUrls


class CheckpointList(ResponseBody):
    """A job's checkpoints by step."""

    data: list[CheckpointBody]


def checkpoint_body(checkpoint: Checkpoint, artifact: Artifact) -> CheckpointBody:
    """A checkpoint with the facts of its stored bytes."""
    url = f"/v1/checkpoints/{checkpoint.id}"
    return CheckpointBody(
        id=checkpoint.id,
        job_id=checkpoint.job_id,
        created_at=checkpoint.created_at,
        step=checkpoint.step,
        epoch=checkpoint.epoch,
        is_best=checkpoint.is_best,
        is_last=checkpoint.is_last,
        sparsity=checkpoint.sparsity,
        validation_loss=checkpoint.validation_loss,
        metrics=checkpoint.metrics,
        bytes=artifact.size,
        sha256=artifact.sha256,
        urls=CheckpointUrls(content=f"{url}/content", forecasts=f"{url}/forecasts"),
    )
