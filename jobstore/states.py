"""Saved states of trainings: what a job goes on from after a loss, a drain, a pause, or as a retry.

Every function that takes a job wants it read under its row lock. The bytes of a state belong to all rows that name
them: they go with the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, exists, func, select

from jobstore.artifacts import mark_deleting, publish
from jobstore.database import now as database_now
from jobstore.lifecycle import FINAL_STATUSES
from jobstore.storage import StoredBlob
from jobstore.tables import Artifact, Job, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

KEPT = 2  # a torn state falls back to the one before


@dataclass(frozen=True)
class NewState:
    """A state whose bytes are in the store."""

    artifact_id: str
    blob: StoredBlob
    step: int


@dataclass(frozen=True)
class SavedState:
    """Where a state lies, what its bytes must be, and which job saved it after which step."""

    step: int
    key: str
    sha256: str
    saved_by: str


def add_state(session: Session, job: Job, new: NewState) -> None:
    """Publish a state of a job and drop all but the newest two; losses before it no longer count."""
    publish(session, new.artifact_id, new.blob)
    job.losses = 0
    others = [state for state in _rows(session, job) if state.step != new.step]
    for state in _rows(session, job):
        if state not in others[: KEPT - 1]:
            _drop(session, state)
    session.add(
        State(
            job_id=job.id,
            step=new.step,
            tenant_id=job.tenant_id,
            artifact_id=new.artifact_id,
            saved_by=job.id,
            created_at=database_now(session),
        )
    )
    session.flush()


def states_of(session: Session, job: Job) -> list[SavedState]:
    """The states of a job, newest first."""
    rows = session.execute(_saved(), {"job": job.id})
    return [SavedState(row.step, row.key, row.sha256 or "", row.saved_by) for row in rows]


# Put together once: it is part of every claim.
@cache
def _saved() -> Select[int, str, str | None, str]:
    return (
        select(State.step, Artifact.key, Artifact.sha256, State.saved_by)
        .join(Artifact, State.artifact_id == Artifact.id)
        .where(State.job_id == bindparam("job"))
        .order_by(State.step.desc())
    )


def newest_step(session: Session, job: Job) -> int | None:
    """The step after which a job's newest state was saved; None when there is none."""
    return session.scalar(select(func.max(State.step)).where(State.job_id == job.id))


def drop_state(session: Session, job: Job, step: int) -> None:
    """Give up one state of a job."""
    for state in _rows(session, job):
        if state.step == step:
            _drop(session, state)


def drop_states(session: Session, job: Job) -> None:
    """Give up all states of a job."""
    for state in _rows(session, job):
        _drop(session, state)


def share_states(session: Session, source: Job, job: Job) -> None:
    """Let a new job go on from the states of another one."""
    for state in _rows(session, source):
        session.add(
            State(
                job_id=job.id,
                step=state.step,
                tenant_id=state.tenant_id,
                artifact_id=state.artifact_id,
                saved_by=state.saved_by,
                created_at=state.created_at,
            )
        )
    session.flush()


def drop_expired_states(session: Session, *, now: datetime, hours: float, batch: int = 100) -> int:
    """Give up the states of jobs that ended more than `hours` ago; returns of how many jobs."""
    ended_before = now - timedelta(hours=hours)
    ended = session.scalars(
        select(Job)
        .where(
            # Older than the jobs' end, they lead to them; most jobs that ended long ago have none.
            Job.id.in_(select(State.job_id).where(State.created_at < ended_before)),
            Job.status.in_([*FINAL_STATUSES]),
            Job.finished_at < ended_before,
        )
        .limit(batch)
        .with_for_update(skip_locked=True)
    ).all()
    for job in ended:
        drop_states(session, job)
    return len(ended)


def _rows(session: Session, job: Job) -> Sequence[State]:
    return session.scalars(select(State).where(State.job_id == job.id).order_by(State.step.desc())).all()


def _drop(session: Session, state: State) -> None:
    # Two jobs may drop the same bytes at the same time: the second one must see that the first has.
    session.execute(select(Artifact.id).where(Artifact.id == state.artifact_id).with_for_update())
    session.delete(state)
    session.flush()
    if session.scalar(select(exists().where(State.artifact_id == state.artifact_id))) is False:
        mark_deleting(session, state.artifact_id)
