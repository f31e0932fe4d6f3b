"""/v1/jobs/{job_id}/evaluation"""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.existence import JobId, existing_evaluation
from api.services import ServicesDep
from pals_core.evaluation.document import Evaluation

router = APIRouter(prefix="/v1/jobs/{job_id}/evaluation", tags=["jobs"])


@router.get("", response_class=Response, responses={200: {"model": Evaluation}})
def show_evaluation(services: ServicesDep, job_id: JobId) -> Response:
    """Test errors of the job's best checkpoint by horizon step and column, beside the seasonal naive forecast's.

    It comes with the end of the training, and says how much of the test part the prediction intervals cover.
    """
    with services.database.read() as session:
        artifact = existing_evaluation(session, job_id)
    # As the training wrote it; it is not read here again.
    return Response(services.artifacts.read(artifact.key), media_type="application/json")
