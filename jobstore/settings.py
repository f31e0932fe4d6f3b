"""Settings, read from `PALS_…` environment variables; every default serves the embedded service."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024
EMBEDDED_BROKER = "message-folder"  # the scheme of its URL


class Settings(BaseSettings):
    """Where things are and how much is allowed; one field, one environment variable."""

    model_config = SettingsConfigDict(env_prefix="PALS_", env_ignore_empty=True, frozen=True, extra="ignore")

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
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Least level that is logged.")

    lease_seconds: float = Field(
        60, gt=0, description="How long a worker owns a job without renewing; renewed at a third."
    )
    lease_grace_seconds: float = Field(
        10, gt=0, description="How long past its end a lease is respected, so that a frozen worker's child stops first."
    )
    worker_slots: int = Field(
        1,
        ge=1,
        le=256,
        description="Jobs one worker trains on the CPU at once; each GPU has one more.",
    )
    training_memory_bytes: int | None = Field(
        None, gt=0, description="Most resident memory of one training; a job may set a lower limit. Unset: no limit."
    )
    state_interval_seconds: float = Field(
        60,
        gt=0,
        description="Within an epoch, a training's state is saved this often; at the ends of epochs at most every 5 s.",
    )
    state_retention_hours: float = Field(
        168, ge=0, description="How long after its end a failed or cancelled job can be retried from its last state."
    )
    event_retention_days: float | None = Field(
        None, gt=0, description="How long after its end a job's log is kept, but for its moves; unset: with the job."
    )
    metric_retention_days: float | None = Field(
        None, gt=0, description="How long after its end a job's metrics are kept; unset: with the job."
    )
    upkeep_seconds: float = Field(2, gt=0, description="Pause between two passes of upkeep.")
    max_upload_bytes: int = Field(2048 * MIB, gt=0, description="Largest dataset upload.")
    max_queued_jobs: int = Field(10_000, gt=0, description="Most unfinished jobs one tenant may have.")
    audit_memory_bytes: int = Field(6144 * MIB, gt=0, description="Memory of the process that audits an upload.")
    audit_seconds: float = Field(300, gt=0, description="Time an audit may take.")
    forecast_memory_bytes: int = Field(4096 * MIB, gt=0, description="Memory of a process that forecasts.")
    model_cache_bytes: int = Field(
        1024 * MIB, ge=0, description="Memory that an API process may fill with loaded models; 0 keeps none."
    )
    forecast_seconds: float = Field(60, gt=0, description="Time one forecast may take.")
    variant_memory_bytes: int = Field(
        4096 * MIB, gt=0, description="Memory of the process that makes a checkpoint's variant."
    )
    variant_seconds: float = Field(600, gt=0, description="Time the making of a variant may take.")
    offload_processes: int = Field(2, ge=1, le=64, description="Child processes for audits and forecasts.")

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
        return f"sqlite:///{self.root / 'pals.db'}"

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
