"""/v1/checkpoints and /v1/jobs/{job_id}/checkpoints"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from api.blobs import BLOB_RESPONSES, EXPORT_MEDIA_TYPES, blob_response, file_name
from api.existence import CheckpointId, JobId, existing_checkpoint, existing_job, locked_checkpoint
from api.problems import ApiProblem, ProblemCode, ProblemItem
from api.schemas.checkpoints import (
    CheckpointBody,
    CheckpointList,
    VariantBody,
    checkpoint_body,
    variant_body,
    variant_url,
)
from api.services import ServicesDep
from jobstore.artifacts import get_artifact
from jobstore.checkpoints import checkpoints_of, delete_checkpoint
from jobstore.tables import Checkpoint
from jobstore.variants import variants_of
from pals_core.checkpoint.header import StoredPrecision
from pals_core.export.formats import ExportFormat

MAKING_RETRY_SECONDS = "1"
router = APIRouter(tags=["checkpoints"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"content": dict.fromkeys(EXPORT_MEDIA_TYPES.values(), _BINARY)},
    202: {
        "model": VariantBody,
        "description": "It is being made: ask again after `Retry-After` seconds",
        "content": {
            "application/json": {
                "example": {
                    "format": "packed",
                    "precision": "int8",
                    "status": "making",
                    "bytes": None,
                    "sha256": None,
                    "mse_change": None,
                    "may_be_default": False,
                    "url": "/v1/checkpoints/ckpt_0199c2f4a1b20123456789abcdef/content?format=packed&precision=int8",
                }
            }
        },
    },
    **BLOB_RESPONSES,
}


def _shown(session: Session, checkpoints: list[Checkpoint]) -> list[CheckpointBody]:
    variants = [
        (variant, None if variant.artifact_id is None else get_artifact(session, variant.artifact_id))
        for variant in variants_of(session, [checkpoint.id for checkpoint in checkpoints])
    ]
    return [
        checkpoint_body(
            checkpoint,
            get_artifact(session, checkpoint.artifact_id),
            [(variant, artifact) for variant, artifact in variants if variant.checkpoint_id == checkpoint.id],
        )
        for checkpoint in checkpoints
    ]


@router.get("/v1/jobs/{job_id}/checkpoints")
def list_checkpoints(services: ServicesDep, job_id: JobId) -> CheckpointList:
    """The checkpoints of a job, two at most: the best and the last."""
    with services.database.read() as session:
        existing_job(session, job_id)
        return CheckpointList(data=_shown(session, [*checkpoints_of(session, job_id)]))


@router.get("/v1/checkpoints/{checkpoint_id}")
def show_checkpoint(services: ServicesDep, checkpoint_id: CheckpointId) -> CheckpointBody:
    """One checkpoint."""
    with services.database.read() as session:
        checkpoint, _ = existing_checkpoint(session, checkpoint_id)
        return _shown(session, [checkpoint])[0]


@router.delete("/v1/checkpoints/{checkpoint_id}", status_code=204)
def delete_one_checkpoint(services: ServicesDep, checkpoint_id: CheckpointId) -> None:
    """Delete a checkpoint with its variants, and their bytes."""
    with services.database.write() as session:
        delete_checkpoint(session, locked_checkpoint(session, checkpoint_id))


@router.get("/v1/checkpoints/{checkpoint_id}/content", response_class=Response, responses=_CONTENT)
def download_checkpoint(
    services: ServicesDep,
    request: Request,
    checkpoint_id: CheckpointId,
    kind: Annotated[
        ExportFormat,
        Query(
            alias="format",
            description="packed: a checkpoint file. dense: safetensors that load_state_dict takes. onnx. card: a model "
            "card with its pictures, zipped.",
        ),
    ] = ExportFormat.PACKED,
    precision: Annotated[
        StoredPrecision, Query(description="Of the active values; another than fp32 is for packed alone.")
    ] = StoredPrecision.FP32,
) -> Response:
    """The checkpoint as a file, packed and in fp32 unless asked for otherwise.

    Its SHA-256 is the ETag; knows Range, If-Range and If-None-Match, and HEAD. Another format or precision is made when
    first asked for: 202 until it is there. What rounding changed of the test MSE, the checkpoint's `variants` say.
    """
    if not kind.has(precision):
        detail = f"Format {kind} is in fp32 alone; leave precision out, or ask for format packed."
        raise ApiProblem(ProblemCode.INVALID_QUERY, detail, [ProblemItem(message=detail, parameter="precision")])
    if kind is ExportFormat.PACKED and precision is StoredPrecision.FP32:
        artifact_id = None
    else:
        variant = services.variants.get(checkpoint_id, kind, precision)
        if variant.artifact_id is None:
            headers = {"Location": variant_url(variant), "Retry-After": MAKING_RETRY_SECONDS}
            body = variant_body(variant, None).model_dump_json()
            return Response(body, 202, headers, media_type="application/json")
        artifact_id = variant.artifact_id
    with services.database.read() as session:
        checkpoint, artifact = existing_checkpoint(session, checkpoint_id)
        job = existing_job(session, checkpoint.job_id)
        if artifact_id is not None:
            artifact = get_artifact(session, artifact_id)
    return blob_response(
        request,
        services.artifacts,
        artifact,
        media_type=EXPORT_MEDIA_TYPES[kind],
        name=file_name(job.name or job.id, kind.suffix(precision)),
    )
