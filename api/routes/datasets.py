"""/v1/datasets"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response

from api.blobs import BLOB_RESPONSES, MEDIA_SUFFIXES, blob_response, file_name
from api.existence import Cursor, DatasetId, Limit, existing_dataset, locked_dataset
from api.problems import ApiProblem, ProblemCode, ProblemItem
from api.schemas.bodies import PageBody
from api.schemas.datasets import DatasetBody, DatasetError, dataset_body
from api.services import Services, ServicesDep
from api.uploads import Upload, receive_upload
from jobstore.artifacts import get_artifact
from jobstore.database import Database
from jobstore.datasets import create_dataset, delete_dataset, get_dataset, list_datasets
from jobstore.lifecycle import DatasetStatus
from jobstore.storage import StorageFailed
from jobstore.tables import DEFAULT_TENANT
from pals_core.errors import ErrorCode

AUDIT_WAIT_SECONDS = 5.0
router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A series table: CSV, gzip'd CSV or Parquet, wide (a time column and numeric columns) or long "
        "(unique_id, ds, y). Told apart by content.",
        "content": {
            "text/csv": {
                "schema": {"type": "string"},
                "example": "date,load\n2026-01-01 00:00:00,310.5\n2026-01-01 01:00:00,298.0\n",
            },
            "application/vnd.apache.parquet": _BINARY,
            "application/gzip": _BINARY,
            "application/octet-stream": _BINARY,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}, "name": {"type": "string"}},
                },
                "example": {"name": "load", "file": "date,load\n2026-01-01 00:00:00,310.5\n"},
            },
        },
    }
}


def _shown(database: Database, dataset_id: str) -> DatasetBody:
    with database.read() as session:
        dataset = existing_dataset(session, dataset_id)
        artifact = get_artifact(session, dataset.artifact_id) if dataset.artifact_id else None
        return dataset_body(dataset, artifact)


def _create(services: Services, upload: Upload) -> str:
    try:
        with services.database.write() as session:
            return create_dataset(
                session,
                tenant_id=DEFAULT_TENANT,
                name=upload.name,
                media_type=upload.media_type,
                artifact_id=upload.artifact_id,
                blob=upload.blob,
                audit_seconds=services.audits.owned_seconds,
            ).id
    except StorageFailed:
        # An upload of more than a day: the sweep has forgotten its row, so nobody else would remove the bytes.
        services.artifacts.delete(upload.artifact_key)
        raise


def _delete_quietly(database: Database, dataset_id: str) -> None:
    with database.write() as session:
        if (dataset := get_dataset(session, DEFAULT_TENANT, dataset_id)) is not None:
            delete_dataset(session, dataset)


def _unreadable(error: DatasetError) -> ApiProblem:
    items = [ProblemItem(message=item.message, row=item.row, column=item.column) for item in error.errors]
    return ApiProblem(ProblemCode.INVALID_TABLE, error.message, items)


@router.post("", status_code=201, openapi_extra=_UPLOAD_BODY, responses={202: {"model": DatasetBody}})
async def upload_dataset(
    request: Request,
    response: Response,
    services: ServicesDep,
    name: Annotated[str | None, Query(max_length=200, description="For people; a form's file name otherwise.")] = None,
) -> DatasetBody:
    """Upload a series table and audit it.

    Answers 201 when the audit ended within 5 s, else 202: then ask for the dataset until its status is no
    longer `auditing`. What is not a readable table with a time column and a numeric one is refused; all
    else is a finding in the dataset's `profile`.
    """
    upload = await receive_upload(request, services, name)
    dataset_id = await run_sync(_create, services, upload)
    written = services.audits.start(dataset_id, upload.artifact_key)
    await asyncio.wait([asyncio.wrap_future(written)], timeout=AUDIT_WAIT_SECONDS)
    dataset = await run_sync(_shown, services.database, dataset_id)
    if dataset.error is not None and dataset.error.code == ErrorCode.INVALID_TABLE:
        await run_sync(_delete_quietly, services.database, dataset_id)
        raise _unreadable(dataset.error)
    response.status_code = 202 if dataset.status is DatasetStatus.AUDITING else 201
    response.headers["Location"] = f"/v1/datasets/{dataset_id}"
    return dataset


@router.get("")
def list_all_datasets(services: ServicesDep, limit: Limit = 20, after: Cursor = None) -> PageBody[DatasetBody]:
    """The datasets, newest first."""
    with services.database.read() as session:
        page = list_datasets(session, DEFAULT_TENANT, limit=limit, after=after)
        data = [
            dataset_body(dataset, get_artifact(session, dataset.artifact_id) if dataset.artifact_id else None)
            for dataset in page.rows
        ]
    return PageBody(data=data, has_more=page.next is not None, next=page.next)


@router.get("/{dataset_id}")
def show_dataset(services: ServicesDep, dataset_id: DatasetId) -> DatasetBody:
    """One dataset and what its audit found."""
    return _shown(services.database, dataset_id)


@router.delete("/{dataset_id}", status_code=204)
def delete_one_dataset(services: ServicesDep, dataset_id: DatasetId) -> None:
    """Delete a dataset and its bytes; refused while an unfinished job needs it."""
    with services.database.write() as session:
        delete_dataset(session, locked_dataset(session, dataset_id))


@router.get(
    "/{dataset_id}/content",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": _BINARY}}, **BLOB_RESPONSES},
)
def download_dataset(services: ServicesDep, request: Request, dataset_id: DatasetId) -> Response:
    """The uploaded bytes; knows Range, If-Range and If-None-Match."""
    with services.database.read() as session:
        dataset = existing_dataset(session, dataset_id)
        if dataset.artifact_id is None:
            raise ApiProblem(ProblemCode.NOT_FOUND, f"Nothing is stored of dataset {dataset_id}.")
        artifact = get_artifact(session, dataset.artifact_id)
    return blob_response(
        request,
        services.artifacts,
        artifact,
        media_type=dataset.media_type,
        name=file_name(dataset.name, MEDIA_SUFFIXES[dataset.media_type]),
    )
