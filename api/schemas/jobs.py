"""Jobs as they are asked for and as they are shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.schemas.bodies import RequestBody, ResponseBody, UtcTime
from jobstore.lifecycle import JobStatus, StatusReason
from jobstore.workers import DeviceClass
from pals_core.spec import Spec

EXAMPLE_JOB: dict[str, Any] = {
    "dataset_id": "ds_0199c2f4a1b20123456789abcdef",
    "name": "illness, 24 weeks",
    "spec": {
        "data": {
            "targets": None,
            "known_future": [],
            "series": "joint",
            "input_len": 36,
            "label_len": 18,
            "horizon": 24,
            "split": {"train": 0.7, "validation": 0.1, "test": 0.2},
            "missing": "error",
            "resample": None,
        },
        "model": {
            "name": "nstransformer",
            "d_model": 512,
            "d_ff": 2048,
            "heads": 8,
            "encoder_layers": 2,
            "decoder_layers": 1,
            "dropout": 0.05,
        },
        "method": {"name": "pals", "prune_rate_factor": 1.1, "loss_tolerance": 1.1, "update_interval": 5},
        "training": {
            "epochs": 10,
            "patience": 3,
            "batch_size": 32,
            "learning_rate": 1e-4,
            "seed": 2020,
            "precision": "fp32",
            "device": "auto",
        },
    },
    "limits": {
        "max_runtime_seconds": None,
        "max_pending_seconds": None,
        "max_memory_bytes": None,
        "max_attempts": 3,
    },
    "priority": 0,
    "dense_twin": False,
    "metadata": {"team": "demand"},
}
SHORT_EXAMPLE_JOB: dict[str, Any] = {
    "dataset_id": "ds_0199c2f4a1b20123456789abcdef",
    "spec": {"data": {"horizon": 24}, "model": "dlinear", "training": {"epochs": 5}},
}

# Quotes and backslashes have a meaning in the databases' JSON paths.
METADATA_KEY_PATTERN = r'^[^"\\\x00-\x1f]{1,64}$'
MetadataKey = Annotated[str, StringConstraints(pattern=METADATA_KEY_PATTERN)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class Limits(BaseModel):
    """How much time and memory a job may take, and how often it may be lost."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    max_runtime_seconds: float | None = Field(
        None, gt=0, description="Training time summed over the attempts; null: no limit."
    )
    max_pending_seconds: float | None = Field(
        None, gt=0, description="Time in the queue after which the job fails; null: no limit."
    )
    max_memory_bytes: int | None = Field(
        None,
        gt=0,
        le=2**60,
        description="Resident memory of the training's process, PyTorch included; null: only the worker's own limit.",
    )
    max_attempts: int = Field(
        3, ge=1, le=100, description="Attempts that may be lost to dead workers without a new saved state between them."
    )


class JobRequest(RequestBody):
    """A training: a dataset, what to forecast, with which model, sparsified how."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [EXAMPLE_JOB, SHORT_EXAMPLE_JOB]},
    )

    dataset_id: str = Field(min_length=1, max_length=40, description="A dataset whose status is ready.")
    name: str = Field("", max_length=200, description="For people; also names the downloaded checkpoint.")
    spec: Spec
    limits: Limits = Field(default_factory=Limits)
    priority: int = Field(0, ge=-100, le=100, description="Higher ones run first.")
    dense_twin: Literal[False] = Field(False, description="A dense job beside the sparse one is not offered.")
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default_factory=dict, max_length=16, description="Pairs of your own; lists can be filtered by them."
    )


class JobError(ResponseBody):
    """Why a job failed."""

    type: str = Field(description="As `status_reason`.")
    code: str
    message: str
    param: str | None = Field(None, description="JSON pointer into the request to what caused it.")


class JobProgress(ResponseBody):
    """How far a running attempt is."""

    percentage: float | None = None
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    total_steps: int | None = None
    estimated_remaining_seconds: float | None = None
    updated_at: UtcTime | None = None


class JobQueue(ResponseBody):
    """Where a queued job stands."""

    jobs_ahead: int = Field(description="As long as no job ends and none is added.")
    estimated_wait_seconds: float | None = Field(
        description="From what is running and how long recent jobs took; null: not known yet."
    )
    waiting_for: str | None = Field(description="What is missing before it can run; null when only its turn is.")


class JobCurrent(ResponseBody):
    """The latest numbers of a running attempt."""

    train_loss: float | None = None
    validation_loss: float | None = None
    sparsity: float | None = None
    move: str | None = Field(None, description="What the last mask update did: shrink, expand or stable.")


class ResumedFrom(ResponseBody):
    """A saved state: which job saved it (a retry goes on from another job's), and after which step."""

    job_id: str
    step: int


class JobUrls(ResponseBody):
    events: str
    stream: str
    metrics: str
    checkpoints: str


class JobBody(ResponseBody):
    """A job and where it stands."""

    id: str
    name: str
    status: JobStatus
    status_reason: StatusReason | None
    error: JobError | None
    spec: dict[str, Any] = Field(description="As asked for, with every default filled in.")
    dataset_id: str
    device_class: DeviceClass
    created_at: UtcTime
    queued_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None
    attempt: int = Field(description="How often a worker took it.")
    priority: int
    limits: Limits
    progress: JobProgress | None = Field(description="Null until a worker reports.")
    queue: JobQueue | None = Field(description="Null unless the job is queued.")
    current: JobCurrent | None
    result: dict[str, Any] | None = Field(description="What the best checkpoint reached; null until the job succeeded.")
    resumed_from: ResumedFrom | None = Field(description="What the latest attempt went on from; null: from the start.")
    retry_of: str | None = Field(description="Job that this one repeats, which may have been deleted; null: none.")
    reproducible: bool | None = Field(
        description="Whether an unbroken repetition on such a worker ends with the same bytes; null: not known yet."
    )
    metadata: dict[str, str]
    urls: JobUrls


class PlanBody(ResponseBody):
    """What `validate_only` answers: the spec with every default, and what it will cost."""

    valid: Literal[True] = True
    spec: dict[str, Any]
    estimate: dict[str, Any]
