"""Datasets as they are shown."""

from __future__ import annotations

from pydantic import Field

from api.schemas.bodies import ResponseBody, UtcTime
from jobstore.lifecycle import DatasetStatus
from jobstore.tables import Artifact, Dataset
from pals_core.data.profile import TableProfile


class TableError(ResponseBody):
    """One reason why a table cannot be read."""

    message: str
    row: int | None = Field(None, description="Row of the file; the header is row 1.")
    column: str | None = None


class DatasetError(ResponseBody):
    """Why a dataset is invalid."""

    code: str
    message: str
    errors: list[TableError] = Field(default_factory=list)


class DatasetBody(ResponseBody):
    """An uploaded series table and what its audit found."""

    id: str
    name: str
    status: DatasetStatus
    created_at: UtcTime
    bytes: int | None
    sha256: str | None
    media_type: str
    profile: TableProfile | None = Field(description="Null until the audit ended, and when the table is invalid.")
    error: DatasetError | None = Field(description="Null unless the dataset is invalid.")


def dataset_body(dataset: Dataset, artifact: Artifact | None) -> DatasetBody:
    """A dataset with the facts of its stored bytes."""
    return DatasetBody(
        id=dataset.id,
        name=dataset.name,
        status=DatasetStatus(dataset.status),
        created_at=dataset.created_at,
        bytes=artifact.size if artifact else None,
        sha256=artifact.sha256 if artifact else None,
        media_type=dataset.media_type,
        profile=None if dataset.profile is None else TableProfile.model_validate(dataset.profile),
        error=None if dataset.error is None else DatasetError.model_validate(dataset.error),
    )
