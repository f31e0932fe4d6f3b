"""/v1/checkpoints/{checkpoint_id}/forecasts"""

from __future__ import annotations

import asyncio
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter

from api.existence import CheckpointId, existing_checkpoint, existing_dataset, ready_profile
from api.problems import ApiProblem, ProblemCode, ProblemItem
from api.schemas.forecasts import ForecastBody, ForecastRequest
from api.services import Services, ServicesDep
from jobstore.artifacts import get_artifact

router = APIRouter(prefix="/v1/checkpoints/{checkpoint_id}/forecasts", tags=["forecasts"])


def _arguments(services: Services, checkpoint_id: str, body: ForecastRequest) -> tuple[dict[str, Any], dict[str, str]]:
    """What the child process needs: what was given, and the keys of stored files."""
    with services.database.read() as session:
        _, artifact = existing_checkpoint(session, checkpoint_id)
        arguments: dict[str, Any] = {}
        blobs = {"checkpoint": artifact.key}
        if body.values is not None:
            arguments["rows"] = {"timestamps": body.timestamps, "values": body.values}
        if body.future is not None:
            arguments["future"] = {"timestamps": body.future.timestamps, "values": body.future.values}
        for name in ("series", "horizon", "levels"):
            if getattr(body, name) is not None:
                arguments[name] = getattr(body, name)
        if body.dataset_id is not None:
            try:
                dataset = existing_dataset(session, body.dataset_id)
            except ApiProblem as problem:
                items = [ProblemItem(pointer="/dataset_id", message="there is no such dataset")]
                raise ApiProblem(problem.code, problem.detail, items) from None
            ready_profile(dataset)
            if dataset.artifact_id is None:
                raise ApiProblem(ProblemCode.DATASET_DELETED, f"Nothing is stored of dataset {dataset.id}.")
            blobs["table"] = get_artifact(session, dataset.artifact_id).key
    return arguments, blobs


@router.post("")
async def post_forecast(
    services: ServicesDep, checkpoint_id: CheckpointId, body: ForecastRequest | None = None
) -> ForecastBody:
    """Forecast with a checkpoint, in the data's own units.

    Goes on from the given values, from the end of a dataset, or, without a body, from the end of the
    series it was trained on. A model with known-future columns needs their values in `future`. The intervals come
    from the errors on the validation part; how many values they cover on the test part, the evaluation says.
    """
    arguments, blobs = await run_sync(_arguments, services, checkpoint_id, body or ForecastRequest())
    forecast = await asyncio.wrap_future(services.offload.forecast(arguments, blobs))
    return ForecastBody(checkpoint_id=checkpoint_id, **forecast)
