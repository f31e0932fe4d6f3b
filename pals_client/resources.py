"""What the service sends, as typed dictionaries; fields it adds later stay reachable."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

JobStatus = Literal["queued", "running", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled"]
FINAL_STATUSES: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})


class Problem(TypedDict):
    """One thing that is wrong, and where: in the request (`pointer`, `parameter`) or in the file."""

    message: str
    pointer: NotRequired[str | None]
    parameter: NotRequired[str | None]
    row: NotRequired[int | None]
    column: NotRequired[str | None]


class DatasetError(TypedDict):
    """Why a dataset is invalid."""

    code: str
    message: str
    errors: NotRequired[list[Problem]]


class Dataset(TypedDict):
    """An uploaded series table; `profile` holds its columns, frequency and findings once audited."""

    id: str
    name: str
    status: Literal["auditing", "ready", "invalid"]
    created_at: str
    bytes: int | None
    sha256: str | None
    media_type: str
    profile: dict[str, Any] | None
    error: DatasetError | None


class Progress(TypedDict):
    """How far a running attempt is."""

    percentage: float | None
    epoch: int | None
    epochs: int | None
    step: int | None
    total_steps: int | None
    estimated_remaining_seconds: float | None
    updated_at: str | None


class JobError(TypedDict):
    """Why a job failed."""

    type: str
    code: str
    message: str
    param: str | None


class ResumedFrom(TypedDict):
    """A saved state: which job saved it, and after which step."""

    job_id: str
    step: int


class Job(TypedDict):
    """A training and where it stands; `result` describes the best checkpoint."""

    id: str
    name: str
    status: JobStatus
    status_reason: str | None
    error: JobError | None
    spec: dict[str, Any]
    dataset_id: str
    created_at: str
    queued_at: str
    started_at: str | None
    finished_at: str | None
    attempt: int
    priority: int
    progress: Progress | None
    queue: dict[str, Any] | None
    current: dict[str, Any] | None
    result: dict[str, Any] | None
    resumed_from: ResumedFrom | None
    retry_of: str | None
    reproducible: bool | None
    metadata: dict[str, str]
    urls: dict[str, str]


class Plan(TypedDict):
    """What a job would be: its spec with every default, and what it costs."""

    valid: bool
    spec: dict[str, Any]
    estimate: dict[str, Any]


class Event(TypedDict):
    """One line of a job's log; `id` counts 1, 2, 3 … per job without gaps."""

    id: int
    created_at: str
    attempt: int
    type: Literal["state", "progress", "mask_update", "epoch", "checkpoint", "message"]
    level: Literal["info", "warning", "error"]
    message: str
    data: dict[str, Any]


class MetricSeries(TypedDict):
    """One series in columns: `values[i]` was measured at optimiser step `steps[i]`."""

    steps: list[int]
    values: list[float]


class Checkpoint(TypedDict):
    """A downloadable sparse model."""

    id: str
    job_id: str
    created_at: str
    step: int
    epoch: int
    is_best: bool
    is_last: bool
    sparsity: float
    validation_loss: float
    metrics: dict[str, Any] | None
    bytes: int
    sha256: str


class Cost(TypedDict):
    """Weights, FLOPs of one forecast, and bytes in a checkpoint; `sparsity` is the share of weights that are off."""

    weights: int
    active: int
    sparsity: float
    flops_dense: int
    flops_sparse: int
    bytes: int


class Layer(Cost):
    """One tensor of weights that can be pruned."""

    name: str
    shape: list[int]
    dtype: str


class Product(TypedDict):
    """What one forecast computes in a module without a weight."""

    module: str
    kind: str
    flops: int


class Layers(TypedDict):
    """What the layers of a job's best checkpoint cost; `total` includes the FLOPs of `products`."""

    job_id: str
    checkpoint_id: str
    epoch: int
    step: int
    data: list[Layer]
    products: list[Product]
    total: Cost


class Evaluation(TypedDict):
    """Test errors of a job's best checkpoint: of the `forecaster`, and of the `naive` forecast beside it."""

    columns: list[str]
    frequency: str
    horizon: int
    windows: int
    stride: int
    first_step: str
    last_step: str
    season: int
    forecaster: dict[str, Any]
    naive: dict[str, Any]
    calibration_residuals: int | None
    intervals: list[dict[str, Any]]
    samples: list[dict[str, Any]]


class Interval(TypedDict):
    """Bounds by column; None where the forecast is, and beyond the model's own horizon."""

    level: float
    lower: dict[str, list[float | None]]
    upper: dict[str, list[float | None]]


class Forecast(TypedDict):
    """The steps after the last known one, in the data's own units: `values[column][i]` at `timestamps[i]`.

    Pooled series that end at different times have None at the steps that are not their own.
    """

    checkpoint_id: str
    timestamps: list[str]
    columns: list[str]
    values: dict[str, list[float | None]]
    intervals: list[Interval]
