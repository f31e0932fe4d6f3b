"""Queries on checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from jobstore.artifacts import mark_deleting, publish
from jobstore.database import now as database_now
from jobstore.events import EventType, NewEvent
from jobstore.ids import Prefix, new_id
from jobstore.storage import StoredBlob
from jobstore.tables import Checkpoint
from jobstore.variants import drop_variants

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from jobstore.tables import Job


@dataclass(frozen=True)
class NewEvaluation:
    """An evaluation whose bytes are in the store."""

    artifact_id: str
    blob: StoredBlob


@dataclass(frozen=True)
class NewCheckpoint:
    """A checkpoint whose bytes are in the store."""

    artifact_id: str
    blob: StoredBlob
    step: int
    epoch: int
    is_best: bool
    is_last: bool
    sparsity: float
    validation_loss: float
    metrics: dict[str, Any] | None
    cost: dict[str, Any]  # a NetworkCost
    evaluation: NewEvaluation | None = None  # an Evaluation as JSON


def add_checkpoint(session: Session, job: Job, new: NewCheckpoint) -> Checkpoint:
    """Publish a checkpoint of a job that was read under its row lock.

    One of the same step is replaced, and keeps its id; those that are now neither best nor last are
    removed, so a job holds two at most.
    """
    publish(session, new.artifact_id, new.blob)
    if new.evaluation is not None:
        publish(session, new.evaluation.artifact_id, new.evaluation.blob)
    now = database_now(session)
    mine: Checkpoint | None = None
    for other in session.scalars(select(Checkpoint).where(Checkpoint.job_id == job.id)).all():
        if other.step == new.step:
            mine = other
            continue
        other.is_best = other.is_best and not new.is_best
        other.is_last = other.is_last and not new.is_last
        if not (other.is_best or other.is_last):
            delete_checkpoint(session, other)
    if mine is None:
        mine = Checkpoint(id=new_id(Prefix.CHECKPOINT), tenant_id=job.tenant_id, job_id=job.id, step=new.step)
        session.add(mine)
    else:
        give_up_artifacts(session, mine)
    mine.artifact_id = new.artifact_id
    mine.evaluation_id = None if new.evaluation is None else new.evaluation.artifact_id
    mine.epoch = new.epoch
    mine.is_best = new.is_best
    mine.is_last = new.is_last
    mine.sparsity = new.sparsity
    mine.validation_loss = new.validation_loss
    mine.metrics = new.metrics
    mine.cost = new.cost
    mine.created_at = now
    session.flush()
    return mine


def checkpoint_saved(checkpoint: Checkpoint, new: NewCheckpoint) -> NewEvent:
    """The event that announces a checkpoint."""
    kind = "best" if new.is_best else "last"
    return NewEvent(
        EventType.CHECKPOINT,
        f"{kind} checkpoint of epoch {new.epoch}: sparsity {new.sparsity:.3f}, {new.blob.size:,} bytes",
        {
            "checkpoint_id": checkpoint.id,
            "step": new.step,
            "epoch": new.epoch,
            "is_best": new.is_best,
            "is_last": new.is_last,
            "sparsity": new.sparsity,
            "validation_loss": new.validation_loss,
            "metrics": new.metrics,
            "bytes": new.blob.size,
            "sha256": new.blob.sha256,
        },
    )


def get_checkpoint(session: Session, tenant_id: str, checkpoint_id: str) -> Checkpoint | None:
    """The tenant's checkpoint, or None."""
    return session.scalar(select(Checkpoint).where(Checkpoint.id == checkpoint_id, Checkpoint.tenant_id == tenant_id))


def checkpoints_of(session: Session, job_id: str) -> Sequence[Checkpoint]:
    """A job's checkpoints by step."""
    return session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step)).all()


def best_checkpoint_of(session: Session, job_id: str) -> Checkpoint | None:
    """A job's best checkpoint so far; None before the first, or when it was deleted."""
    return session.scalar(select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.is_best))


def delete_checkpoint(session: Session, checkpoint: Checkpoint) -> None:
    """Remove a checkpoint and give its bytes, and those of its evaluation and variants, to the sweep."""
    give_up_artifacts(session, checkpoint)
    session.delete(checkpoint)


def give_up_artifacts(session: Session, checkpoint: Checkpoint) -> None:
    """Give the bytes of a checkpoint, of its evaluation and of its variants to the sweep."""
    drop_variants(session, checkpoint.id)
    for artifact_id in (checkpoint.artifact_id, checkpoint.evaluation_id):
        if artifact_id is not None:
            mark_deleting(session, artifact_id)
