"""/v1/checkpoints and /v1/jobs/{job_id}/checkpoints"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.blobs import CHECKPOINT_MEDIA_TYPE, CHECKPOINT_SUFFIX, blob_response, file_name
from api.existence import CheckpointId, JobId, existing_checkpoint, existing_job, locked_checkpoint
from api.schemas.checkpoints import CheckpointBody, CheckpointList, checkpoint_body
from api.services import ServicesDep
from jobstore.artifacts import get_artifact
from jobstore.checkpoints import checkpoints_of, delete_checkpoint

router = APIRouter(tags=["checkpoints"])


@router.get("/v1/jobs/{job_id}/checkpoints")
def list_checkpoints(services: ServicesDep, job_id: JobId) -> CheckpointList:
    """The checkpoints of a job, two at most: the best and the last."""
    with services.database.read() as session:
        existing_job(session, job_id)
        data = [
            checkpoint_body(checkpoint, get_artifact(session, checkpoint.artifact_id))
            for checkpoint in checkpoints_of(session, job_id)
        ]
    return CheckpointList(data=data)


@router.get("/v1/checkpoints/{checkpoint_id}")
def show_checkpoint(services: ServicesDep, checkpoint_id: CheckpointId) -> CheckpointBody:
    """One checkpoint."""
    with services.database.read() as session:
        return checkpoint_body(*existing_checkpoint(session, checkpoint_id))


@router.delete("/v1/checkpoints/{checkpoint_id}", status_code=204)
def delete_one_checkpoint(services: ServicesDep, checkpoint_id: CheckpointId) -> None:
    """Delete a checkpoint and its bytes."""
    with services.database.write() as session:
        delete_checkpoint(session, locked_checkpoint(session, checkpoint_id))


@router.get(
    "/v1/checkpoints/{checkpoint_id}/content",
    response_class=Response,
    responses={
        200: {"content": {CHECKPOINT_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}},
        206: {"description": "The range asked for"},
        304: {"description": "The client has it already"},
    },
)
def download_checkpoint(services: ServicesDep, request: Request, checkpoint_id: CheckpointId) -> Response:
    """The packed sparse file. Its SHA-256 is the ETag; knows Range, If-Range and If-None-Match, and HEAD."""
    with services.database.read() as session:
        checkpoint, artifact = existing_checkpoint(session, checkpoint_id)
        job = existing_job(session, checkpoint.job_id)
    return blob_response(
        request,
        services.artifacts.path(artifact.key),
        sha256=artifact.sha256 or "",
        media_type=CHECKPOINT_MEDIA_TYPE,
        name=file_name(job.name or job.id, CHECKPOINT_SUFFIX),
    )
