"""Queries on datasets."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from jobstore.artifacts import mark_deleting, publish
from jobstore.database import now as database_now
from jobstore.ids import Prefix, new_id
from jobstore.lifecycle import FINAL_STATUSES, DatasetStatus
from jobstore.pages import Page, page
from jobstore.storage import StoredBlob
from jobstore.tables import Dataset, Job

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class DatasetInUse(Exception):
    """An unfinished job needs the dataset; carries its id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the unfinished job {job_id} needs it")
        self.job_id = job_id


def create_dataset(
    session: Session,
    *,
    tenant_id: str,
    name: str,
    media_type: str,
    artifact_id: str,
    blob: StoredBlob,
    audit_seconds: float,
) -> Dataset:
    """Publish the uploaded bytes and insert the dataset as `auditing`, in the caller's transaction."""
    now = database_now(session)
    publish(session, artifact_id, blob)
    dataset = Dataset(
        id=new_id(Prefix.DATASET),
        tenant_id=tenant_id,
        name=name,
        status=DatasetStatus.AUDITING,
        artifact_id=artifact_id,
        media_type=media_type,
        created_at=now,
        audit_expires_at=now + timedelta(seconds=audit_seconds),
    )
    session.add(dataset)
    session.flush()
    return dataset


def get_dataset(session: Session, tenant_id: str, dataset_id: str) -> Dataset | None:
    """The tenant's dataset, or None."""
    return session.scalar(
        select(Dataset).where(Dataset.id == dataset_id, Dataset.tenant_id == tenant_id, Dataset.deleted_at.is_(None))
    )


def list_datasets(session: Session, tenant_id: str, *, limit: int, after: str | None = None) -> Page[Dataset]:
    """The tenant's datasets, newest first."""
    query = select(Dataset).where(Dataset.tenant_id == tenant_id, Dataset.deleted_at.is_(None))
    return page(session, query, Dataset.id, limit=limit, after=after)


def finish_audit(
    session: Session, dataset_id: str, *, profile: dict[str, Any] | None, error: dict[str, Any] | None
) -> None:
    """Write what the audit found: `ready` with a profile, `invalid` with an error."""
    dataset = session.get(Dataset, dataset_id)
    if dataset is None or dataset.deleted_at is not None or dataset.status != DatasetStatus.AUDITING:
        return
    dataset.status = DatasetStatus.READY if error is None else DatasetStatus.INVALID
    dataset.profile = profile
    dataset.error = error
    dataset.audit_expires_at = None


def renew_audits(session: Session, dataset_ids: Collection[str], *, now: datetime, audit_seconds: float) -> None:
    """Own the audits of these datasets for `audit_seconds` from now; those that have ended are left alone."""
    session.execute(
        update(Dataset)
        .where(Dataset.id.in_([*dataset_ids]), Dataset.status == DatasetStatus.AUDITING)
        .values(audit_expires_at=now + timedelta(seconds=audit_seconds))
        .execution_options(synchronize_session=False)
    )


def take_stale_audits(session: Session, *, now: datetime, audit_seconds: float, batch: int = 10) -> list[str]:
    """Datasets whose auditing process died; the caller owns their audit for `audit_seconds` more."""
    stale = session.scalars(
        select(Dataset)
        .where(Dataset.status == DatasetStatus.AUDITING, Dataset.audit_expires_at < now, Dataset.deleted_at.is_(None))
        .limit(batch)
        .with_for_update(skip_locked=True)
    ).all()
    for dataset in stale:
        dataset.audit_expires_at = now + timedelta(seconds=audit_seconds)
    return [dataset.id for dataset in stale]


def lock_dataset(session: Session, tenant_id: str, dataset_id: str) -> Dataset | None:
    """The tenant's dataset under its row lock, which keeps it from being deleted meanwhile; or None."""
    return session.scalar(
        select(Dataset)
        .where(Dataset.id == dataset_id, Dataset.tenant_id == tenant_id, Dataset.deleted_at.is_(None))
        .with_for_update()
    )


def delete_dataset(session: Session, dataset: Dataset) -> None:
    """Delete a dataset that was read under its row lock. Raises DatasetInUse."""
    job_id = session.scalar(
        select(Job.id).where(Job.dataset_id == dataset.id, Job.status.not_in([*FINAL_STATUSES])).limit(1)
    )
    if job_id is not None:
        raise DatasetInUse(job_id)
    dataset.deleted_at = database_now(session)
    if dataset.artifact_id is not None:
        mark_deleting(session, dataset.artifact_id)
        dataset.artifact_id = None
