"""/v1/models and /v1/methods"""

from __future__ import annotations

from fastapi import APIRouter

from api.schemas.catalogue import Catalogue, catalogue
from pals_core.spec import METHOD_SPECS, MODEL_SPECS

router = APIRouter(prefix="/v1", tags=["catalogue"])


@router.get("/models")
async def list_models() -> Catalogue:
    """The forecasters and their fields, for `spec.model`."""
    return catalogue(MODEL_SPECS)


@router.get("/methods")
async def list_methods() -> Catalogue:
    """The sparsification methods and their fields, for `spec.method`."""
    return catalogue(METHOD_SPECS)
