"""/v1/jobs/{job_id}/layers"""

from __future__ import annotations

from fastapi import APIRouter

from api.existence import JobId, existing_best_checkpoint
from api.schemas.layers import LayerList, layer_list
from api.services import ServicesDep

router = APIRouter(prefix="/v1/jobs/{job_id}/layers", tags=["checkpoints"])


@router.get("")
def list_layers(services: ServicesDep, job_id: JobId) -> LayerList:
    """Sparsity, FLOPs of one forecast and bytes of each layer, of the job's best checkpoint so far."""
    with services.database.read() as session:
        return layer_list(existing_best_checkpoint(session, job_id))
