"""Checkpoints as they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from api.schemas.bodies import ResponseBody, UtcTime
from jobstore.lifecycle import VariantStatus
from jobstore.tables import Artifact, Checkpoint, Variant
from pals_core.checkpoint.header import MAX_MSE_CHANGE, StoredPrecision
from pals_core.export.formats import ExportFormat


class CheckpointUrls(ResponseBody):
    content: str
    forecasts: str


class VariantBody(ResponseBody):
    """The checkpoint in another format or precision."""

    format: ExportFormat
    precision: StoredPrecision
    status: VariantStatus
    bytes: int | None = Field(description="Of the file; null until it is ready.")
    sha256: str | None = Field(description="Of the file; also its ETag.")
    mse_change: float | None = Field(
        description="Measured test MSE in this precision over that in fp32, less 1; null where nothing was rounded, or "
        "when the dataset is gone and it could not be measured."
    )
    may_be_default: bool = Field(
        description="Whether it may take the place of fp32: measured to raise the test MSE by at most 1 %."
    )
    url: str


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
    variants: list[VariantBody] = Field(description="Other formats and precisions that were asked for.")
    urls: CheckpointUrls


class CheckpointList(ResponseBody):
    """A job's checkpoints by step."""

    data: list[CheckpointBody]


def variant_url(variant: Variant) -> str:
    return f"/v1/checkpoints/{variant.checkpoint_id}/content?format={variant.format}&precision={variant.precision}"


def variant_body(variant: Variant, artifact: Artifact | None) -> VariantBody:
    """A variant with the facts of its stored bytes, if there are any yet."""
    return VariantBody(
        format=ExportFormat(variant.format),
        precision=StoredPrecision(variant.precision),
        status=VariantStatus(variant.status),
        bytes=None if artifact is None else artifact.size,
        sha256=None if artifact is None else artifact.sha256,
        mse_change=variant.mse_change,
        may_be_default=variant.mse_change is not None and variant.mse_change <= MAX_MSE_CHANGE,
        url=variant_url(variant),
    )


def checkpoint_body(
    checkpoint: Checkpoint, artifact: Artifact, variants: Sequence[tuple[Variant, Artifact | None]]
) -> CheckpointBody:
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
        variants=[variant_body(*variant) for variant in variants],
        urls=CheckpointUrls(content=f"{url}/content", forecasts=f"{url}/forecasts"),
    )
