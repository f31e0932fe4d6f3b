"""Settings, read from `PALS_…` environment variables; every default serves the embedded service."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

MIB = 1024 * 1024
ENV_PREFIX = "PALS_"
DATABASE_DRIVERS = ("postgresql+psycopg", "postgresql", "sqlite")
BROKERS = ("redis", "rediss")
EMBEDDED_BROKER = "message-folder"  # the scheme of its URL
# Longer times would overflow a date.
DAY_SECONDS, CENTURY_DAYS = 86_400, 36_500


class Settings(BaseSettings):
    """Where things are and how much is allowed; one field, one environment variable."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        hide_input_in_errors=True,  # it may be a password
    )

    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port the API listens on; 0 takes a free one.")
    data_dir: Path = Field(
        default_factory=lambda: Path.home() / ".pals",
        description="Folder of the embedded service: database, broker messages, artifacts, scratch space.",
    )
    database_url: SecretStr | None = Field(
        None, description="SQLAlchemy URL (postgresql+psycopg://…); unset: SQLite in data_dir."
    )
    broker_url: SecretStr | None = Field(
        None, description="Celery broker (redis://…); unset: messages as files in data_dir."
    )
    artifacts_url: str | None = Field(
        None,
        description="Folder (file:///…) or S3 bucket (s3://bucket/prefix) of datasets, checkpoints and states; "
        "unset: in data_dir.",
    )
    download_redirects: bool = Field(
        False,
        description="Send who downloads a whole file from a bucket there (307, an address signed for a minute); only "
        "where callers can reach the bucket.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description='JSON list of further host names under which the API may be called (["pals.example.org"]); '
        "loopback names and `host` always are.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")

    lease_seconds: float = Field(
        60,
        gt=0,
        le=DAY_SECONDS,
        description="How long a worker owns a job without renewing; renewed at a third.",
    )
    lease_grace_seconds: float = Field(
        10,
        gt=0,
        le=DAY_SECONDS,
        description="How long past its end a lease is respected, so that a frozen worker's child stops first.",
    )
    worker_slots: int = Field(
        1,
        ge=1,
        le=256,
        description="Jobs one worker trains on the CPU at once; each GPU has one more.",
    )
    training_memory_bytes: int | None = Field(
        None,
        gt=0,
        description="Most resident memory of one training; a job may set a lower limit. Unset: no limit.",
    )
    state_interval_seconds: float = Field(
        60,
        gt=0,
        le=DAY_SECONDS,
        description="Within an epoch, a training's state is saved this often; at the ends of epochs at most every 5 s.",
    )
    state_retention_hours: float = Field(
        168,
        ge=0,
        le=24 * CENTURY_DAYS,
        description="How long after its end a failed or cancelled job can be retried from its last state.",
    )
    event_retention_days: float | None = Field(
        None,
        gt=0,
        le=CENTURY_DAYS,
        description="How long after its end a job's log is kept, but for its moves; unset: with the job.",
    )
    metric_retention_days: float | None = Field(
        None,
        gt=0,
        le=CENTURY_DAYS,
        description="How long after its end a job's metrics are kept; unset: with the job.",
    )
    upkeep_seconds: float = Field(2, gt=0, le=DAY_SECONDS, description="Pause between two passes of upkeep.")
    max_upload_bytes: int = Field(2048 * MIB, gt=0, description="Largest dataset upload.")
    max_queued_jobs: int = Field(10_000, gt=0, description="Most unfinished jobs one tenant may have.")
    audit_memory_bytes: int = Field(6144 * MIB, gt=0, description="Memory of the process that audits an upload.")
    audit_seconds: float = Field(300, gt=0, le=DAY_SECONDS, description="Time an audit may take.")
    forecast_memory_bytes: int = Field(4096 * MIB, gt=0, description="Memory of a process that forecasts.")
    model_cache_bytes: int = Field(
        1024 * MIB, ge=0, description="Memory that an API process may fill with loaded models; 0 keeps none."
    )
    forecast_seconds: float = Field(60, gt=0, le=DAY_SECONDS, description="Time one forecast may take.")
    variant_memory_bytes: int = Field(
        4096 * MIB, gt=0, description="Memory of the process that makes a checkpoint's variant."
    )
    variant_seconds: float = Field(600, gt=0, le=DAY_SECONDS, description="Time the making of a variant may take.")
    offload_processes: int = Field(2, ge=1, le=64, description="Child processes for audits and forecasts.")

    @field_validator("database_url")
    @classmethod
    def _is_a_database(cls, url: SecretStr | None) -> SecretStr | None:
        try:
            driver = None if url is None else make_url(url.get_secret_value()).drivername
        except ArgumentError:
            driver = ""
        if driver is not None and driver not in DATABASE_DRIVERS:
            raise ValueError("must be postgresql+psycopg://user:password@host/name, or sqlite:///file")
        return url

    @field_validator("broker_url")
    @classmethod
    def _is_a_broker(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and url.get_secret_value().partition("://")[0] not in (*BROKERS, EMBEDDED_BROKER):
            raise ValueError("must be redis://…, or rediss://… for TLS")
        return url

    @cached_property
    def root(self) -> Path:
        """`data_dir`, absolute."""
        return self.data_dir.expanduser().resolve()

    @property
    def embedded(self) -> bool:
        """True when neither a database server nor a broker is configured."""
        return self.database_url is None and self.broker_url is None

    @property
    def resolved_database_url(self) -> str:
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.embedded_database}"

    @property
    def embedded_database(self) -> Path:
        return self.root / "pals.db"

    @property
    def resolved_broker_url(self) -> str:
        return self.broker_url.get_secret_value() if self.broker_url is not None else f"{EMBEDDED_BROKER}://"

    @property
    def resolved_artifacts_url(self) -> str:
        return self.artifacts_url or (self.root / "artifacts").as_uri()

    @property
    def broker_dir(self) -> Path:
        """Folder of the file broker's messages."""
        return self.root / "broker"

    @property
    def scratch_dir(self) -> Path:
        """Folder for work in progress of this host; safe to delete while nothing runs."""
        return self.root / "scratch"
