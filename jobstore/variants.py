"""Queries on variants: checkpoints in other formats and precisions, each made once."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, and_, select, update

from jobstore.artifacts import mark_deleting, publish
from jobstore.database import now as database_now
from jobstore.lifecycle import VariantStatus
from jobstore.storage import StoredBlob
from jobstore.tables import Variant

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from jobstore.tables import Checkpoint


@dataclass(frozen=True)
class Making:
    """One attempt to make a variant; whoever holds it may renew it and write its outcome."""

    checkpoint_id: str
    format: str
    precision: str
    tenant_id: str
    token: str

    @property
    def is_mine(self) -> ColumnElement[bool]:
        return and_(
            Variant.checkpoint_id == self.checkpoint_id,
            Variant.format == self.format,
            Variant.precision == self.precision,
            Variant.status == VariantStatus.MAKING,
            Variant.maker == self.token,
        )


def variant_of(session: Session, checkpoint_id: str, kind: str, precision: str) -> Variant | None:
    """A checkpoint's variant, whatever its status; None when nobody has asked for it."""
    return session.get(Variant, (checkpoint_id, kind, precision))


def variants_of(session: Session, checkpoint_ids: Collection[str]) -> Sequence[Variant]:
    """The variants of these checkpoints by format and precision."""
    of_these = select(Variant).where(Variant.checkpoint_id.in_([*checkpoint_ids]))
    return session.scalars(of_these.order_by(Variant.format, Variant.precision)).all()


def is_settled(variant: Variant, now: datetime) -> bool:
    """Whether there is nothing to start: it is ready, being made, or failed a moment ago."""
    return variant.status == VariantStatus.READY or (variant.expires_at is not None and variant.expires_at > now)


def take_variant(
    session: Session, checkpoint: Checkpoint, kind: str, precision: str, *, seconds: float
) -> Making | None:
    """Begin to make a variant of a checkpoint that was read under its job's lock; None when it is settled.

    The attempt is the caller's for `seconds` without renewing. One whose process died, and a failure of some time ago,
    are taken over.
    """
    now = database_now(session)
    row = session.get(Variant, (checkpoint.id, kind, precision), with_for_update=True, populate_existing=True)
    if row is not None and is_settled(row, now):
        return None
    if row is None:
        row = Variant(
            checkpoint_id=checkpoint.id,
            format=kind,
            precision=precision,
            tenant_id=checkpoint.tenant_id,
            created_at=now,
        )
        session.add(row)
    row.status = VariantStatus.MAKING
    row.error = None
    row.maker = secrets.token_hex(16)
    row.expires_at = now + timedelta(seconds=seconds)
    session.flush()
    return Making(checkpoint.id, kind, precision, checkpoint.tenant_id, row.maker)


def renew_variant(session: Session, making: Making, *, seconds: float) -> bool:
    """Keep an attempt for `seconds` from now; with 0, leave it to whoever asks next. False when it is lost."""
    return _write(session, making, expires_at=database_now(session) + timedelta(seconds=seconds))


def publish_variant(
    session: Session, making: Making, artifact_id: str, blob: StoredBlob, *, mse_change: float | None
) -> bool:
    """Make a variant ready, with its bytes; False, giving them to the sweep, when the attempt is lost."""
    values = {"status": VariantStatus.READY, "artifact_id": artifact_id, "mse_change": mse_change}
    if not _write(session, making, maker=None, expires_at=None, **values):
        mark_deleting(session, artifact_id)
        return False
    publish(session, artifact_id, blob)
    return True


def fail_variant(session: Session, making: Making, error: dict[str, Any], *, seconds: float) -> bool:
    """Say for `seconds` why a variant could not be made; False when the attempt is lost."""
    until = database_now(session) + timedelta(seconds=seconds)
    return _write(session, making, status=VariantStatus.FAILED, maker=None, error=error, expires_at=until)


def drop_variants(session: Session, checkpoint_id: str) -> None:
    """Forget a checkpoint's variants and give their bytes to the sweep."""
    # Under their locks: one that is published at this moment is seen with its bytes.
    for variant in session.scalars(select(Variant).where(Variant.checkpoint_id == checkpoint_id).with_for_update()):
        if variant.artifact_id is not None:
            mark_deleting(session, variant.artifact_id)
        session.delete(variant)
    session.flush()


def _write(session: Session, making: Making, **values: Any) -> bool:
    written = session.execute(
        update(Variant).where(making.is_mine).values(**values).execution_options(synchronize_session=False)
    )
    return bool(written.rowcount)  # type: ignore[attr-defined]
