"""Blobs: a row that says what is stored; the bytes are in a store (`jobstore/storage`).

The way of a blob: its row is committed as `pending`; the bytes go to the store, where they appear whole or not at
all; the row is published in the transaction that makes its owner refer to it. Whatever dies on that way leaves a
pending row, which `sweepable` finds later.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, exists, select, update

from jobstore.database import now as database_now
from jobstore.ids import Prefix, new_id
from jobstore.storage import StorageFailed, StoredBlob
from jobstore.tables import Artifact, Checkpoint, Dataset, State, Variant

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

PENDING, PUBLISHED, DELETING = "pending", "published", "deleting"


def new_artifact(session: Session, tenant_id: str, kind: str) -> Artifact:
    """A pending row; commit it before writing the bytes under its key."""
    artifact_id = new_id(Prefix.ARTIFACT)
    artifact = Artifact(
        id=artifact_id,
        tenant_id=tenant_id,
        key=f"{tenant_id}/{kind}/{artifact_id}",
        status=PENDING,
        created_at=database_now(session),
    )
    session.add(artifact)
    session.flush()
    return artifact


def get_artifact(session: Session, artifact_id: str) -> Artifact:
    """The row of stored bytes."""
    return session.get_one(Artifact, artifact_id)


def publish(session: Session, artifact_id: str, blob: StoredBlob) -> None:
    """Say that the bytes are whole; belongs into the transaction that refers to them.

    Raises StorageFailed when the sweep took them for abandoned meanwhile.
    """
    published = session.execute(
        update(Artifact)
        .where(Artifact.id == artifact_id, Artifact.status == PENDING)
        .values(status=PUBLISHED, sha256=blob.sha256, size=blob.size)
    )
    if published.rowcount == 0:  # type: ignore[attr-defined]
        raise StorageFailed("the artifact store failed: the bytes were swept before anything referred to them")


def nothing_kept(session: Session) -> bool:
    """Whether no bytes are published: the store may be a new one."""
    return session.scalar(select(exists().where(Artifact.status == PUBLISHED))) is False


def mark_deleting(session: Session, artifact_id: str) -> None:
    """Give an artifact that nothing refers to any more over to the sweep."""
    session.execute(update(Artifact).where(Artifact.id == artifact_id).values(status=DELETING))


def sweepable(session: Session, *, now: datetime, pending_hours: float = 24, batch: int = 100) -> list[tuple[str, str]]:
    """Mark and return (id, key) of artifacts to remove: given up, or pending for a day and unreferenced."""
    owners = (
        Dataset.artifact_id,
        Checkpoint.artifact_id,
        Checkpoint.evaluation_id,
        State.artifact_id,
        Variant.artifact_id,
    )
    abandoned = (
        select(Artifact.id)
        .where(
            Artifact.status == PENDING,
            Artifact.created_at < now - timedelta(hours=pending_hours),
            *(~exists().where(owner == Artifact.id) for owner in owners),
        )
        .limit(batch)
    )
    session.execute(
        update(Artifact)
        .where(Artifact.id.in_(abandoned.scalar_subquery()))
        .values(status=DELETING)
        .execution_options(synchronize_session=False)
    )
    rows = session.execute(select(Artifact.id, Artifact.key).where(Artifact.status == DELETING).limit(batch)).all()
    return [(row.id, row.key) for row in rows]


def forget(session: Session, artifact_ids: Collection[str]) -> None:
    """Remove the rows of artifacts whose bytes are gone."""
    session.execute(delete(Artifact).where(Artifact.id.in_([*artifact_ids]), Artifact.status == DELETING))
