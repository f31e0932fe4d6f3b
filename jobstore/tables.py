"""The tables. Every row carries its tenant; times are UTC; identifiers sort by creation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ColumnElement,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DEFAULT_TENANT = "default"


class UTCDateTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite, which knows no zones, keeps it naive."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored time needs a time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
Id = String(40)
Name = String(32)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 (declared so by SQLAlchemy)
        datetime: UTCDateTime,
        dict[str, Any]: Json,
        list[dict[str, Any]]: Json,
        int: BigInteger,
        float: Float,
    }


class Artifact(Base):
    """One stored blob. `pending` until its bytes are whole and its owner's row refers to it."""

    __tablename__ = "artifacts"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Id)
    key: Mapped[str] = mapped_column(String(200), unique=True)
    status: Mapped[str] = mapped_column(Name)
    sha256: Mapped[str | None] = mapped_column(String(64))
    size: Mapped[int | None]
    created_at: Mapped[datetime]

    __table_args__ = (
        Index(None, "status", "created_at"),
        CheckConstraint("status IN ('pending', 'published', 'deleting')", name="status"),
    )


class Dataset(Base):
    """An uploaded series table and what its audit found.

    A deleted one keeps its row, without bytes, because the jobs that were trained on it name it.
    """

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Id)
    name: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(Name)
    artifact_id: Mapped[str | None] = mapped_column(ForeignKey("artifacts.id"), index=True)
    media_type: Mapped[str] = mapped_column(String(100))
    profile: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    audit_expires_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    __table_args__ = (Index(None, "tenant_id", "id"), Index(None, "status", "audit_expires_at"))


def _only(condition: str) -> dict[str, Any]:
    """Keep an index to the rows of which this holds."""
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


class Job(Base):
    """One training and where it stands; also the queue and the counter of its events."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Id)
    name: Mapped[str] = mapped_column(String(200))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"), index=True)
    spec: Mapped[dict[str, Any]]
    limits: Mapped[dict[str, Any]]
    job_metadata: Mapped[dict[str, Any]] = mapped_column("metadata", Json)
    priority: Mapped[int]
    device_class: Mapped[str] = mapped_column(Name)

    status: Mapped[str] = mapped_column(Name)
    status_reason: Mapped[str | None] = mapped_column(Name)
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    not_before: Mapped[datetime | None]  # when it may be claimed, or might when it was; null: as soon as it is queued
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    attempt: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    runtime_seconds: Mapped[float] = mapped_column(default=0.0)
    micro_batches: Mapped[int] = mapped_column(default=1)
    retry_of: Mapped[str | None] = mapped_column(Id, index=True)  # the other may be deleted
    resumed_from: Mapped[dict[str, Any] | None]
    reproducible: Mapped[bool | None]
    event_seq: Mapped[int] = mapped_column(default=0)
    report_seq: Mapped[int] = mapped_column(default=0)
    lease_token: Mapped[str | None] = mapped_column(Id)
    lease_expires_at: Mapped[datetime | None]
    worker_id: Mapped[str | None] = mapped_column(Id)
    worker_slot: Mapped[str | None] = mapped_column(Name)

    progress: Mapped[dict[str, Any] | None]
    current: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]

    __table_args__ = (
        Index(None, "tenant_id", "id"),
        Index(None, "tenant_id", "status", "id"),
        Index(None, "status", "lease_expires_at"),
        Index("ix_jobs_finished_at", "finished_at", **_only("finished_at IS NOT NULL")),
    )


def in_turn(job: type[Job]) -> tuple[ColumnElement[Any], ...]:
    """The order of the queue, as a whole and of each tenant."""
    return job.priority.desc(), job.queued_at.asc(), job.id.asc()


_QUEUED = _only("status = 'queued'")
Index("ix_jobs_queue", *in_turn(Job), **_QUEUED)
Index("ix_jobs_queue_of_tenant", Job.tenant_id, *in_turn(Job), **_QUEUED)


class Turn(Base):
    """When a tenant's job was claimed last: `served` counts the claims of all tenants, 0 is never."""

    __tablename__ = "turns"

    tenant_id: Mapped[str] = mapped_column(Id, primary_key=True)
    served: Mapped[int] = mapped_column(default=0)


class Event(Base):
    """One line of a job's log; `seq` counts 1, 2, 3 … per job without gaps."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Id)
    created_at: Mapped[datetime]
    attempt: Mapped[int]
    type: Mapped[str] = mapped_column(Name)
    level: Mapped[str] = mapped_column(Name)
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]]


class Metric(Base):
    """One point of one series of a job."""

    __tablename__ = "metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(Name, primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Id)
    value: Mapped[float]


class Checkpoint(Base):
    """One downloadable sparse model of a job."""

    __tablename__ = "checkpoints"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Id)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), index=True)
    evaluation_id: Mapped[str | None] = mapped_column(ForeignKey("artifacts.id"), index=True)
    step: Mapped[int]
    epoch: Mapped[int]
    is_best: Mapped[bool]
    is_last: Mapped[bool]
    sparsity: Mapped[float]
    validation_loss: Mapped[float]
    metrics: Mapped[dict[str, Any] | None]
    cost: Mapped[dict[str, Any]] = mapped_column(JSON)  # not JSONB, which forgets the order of the layers
    created_at: Mapped[datetime]

    __table_args__ = (Index(None, "job_id", "step", unique=True),)


class Variant(Base):
    """A checkpoint in another format or precision: being made by one process, ready, or failed."""

    __tablename__ = "variants"

    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id", ondelete="CASCADE"), primary_key=True)
    format: Mapped[str] = mapped_column(Name, primary_key=True)
    precision: Mapped[str] = mapped_column(Name, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Id)
    status: Mapped[str] = mapped_column(Name)
    artifact_id: Mapped[str | None] = mapped_column(ForeignKey("artifacts.id"), index=True)
    mse_change: Mapped[float | None]
    error: Mapped[dict[str, Any] | None]
    maker: Mapped[str | None] = mapped_column(Id)  # a token of the attempt that makes it
    expires_at: Mapped[datetime | None]  # of that attempt; of a failure, when it may be tried again
    created_at: Mapped[datetime]


class State(Base):
    """One saved state of a job's training; a retry's may share its bytes with those of the job it repeats."""

    __tablename__ = "states"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(Id)
    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), index=True)
    saved_by: Mapped[str] = mapped_column(Id)  # the job that saved it, which may be deleted
    created_at: Mapped[datetime] = mapped_column(index=True)


class Worker(Base):
    """A worker process and its last sign of life."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    hostname: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int]
    slots: Mapped[list[dict[str, Any]]]
    details: Mapped[dict[str, Any]]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime] = mapped_column(index=True)


class Retention(Base):
    """Up to which job, in the order in which they ended, a kind of record was deleted because its time was over."""

    __tablename__ = "retentions"

    record: Mapped[str] = mapped_column(Name, primary_key=True)
    finished_at: Mapped[datetime]
    job_id: Mapped[str] = mapped_column(Id)


class Leader(Base):
    """Who does upkeep, until when; taken by compare-and-set."""

    __tablename__ = "leaders"

    name: Mapped[str] = mapped_column(Name, primary_key=True)
    holder: Mapped[str] = mapped_column(Id)
    expires_at: Mapped[datetime]
