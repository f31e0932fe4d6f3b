"""What a supervisor and its training process say to each other: one JSON object a line.

To the child, on its standard input: one Train, then a LeaseRenewed at each renewal, and perhaps a
Suspend. The input's end means that the supervisor is gone. From the child: Ready once torch is
imported, then the training's events, and at the end Finished, Failed,
StorageUnavailable or Suspended.

When a lease ends is told as a moment of `worker.clock.lease_time`: a line that is read late, by a child that was
frozen, promises nothing more than it did when it was written.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from pals_core.errors import ErrorCode
from pals_core.training.events import TrainingEvent


class Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Train(Line):
    """Train this, in `output_dir`; stop unless the lease is renewed before `lease_until`.

    With `resume_from` go on from that state, with its number of threads.
    """

    type: Literal["train"] = "train"
    spec: dict[str, Any]
    table_path: str
    dataset_sha256: str
    output_dir: str
    resume_from: str | None
    state_interval_seconds: float
    micro_batches: int
    threads: int
    lease_until: float


class LeaseRenewed(Line):
    """The job is yours until then."""

    type: Literal["lease"] = "lease"
    until: float


class Suspend(Line):
    """Save the state after the step in progress, and end."""

    type: Literal["suspend"] = "suspend"


class Gpu(Line):
    """A GPU as PyTorch sees it."""

    name: str
    memory_bytes: int


class Ready(Line):
    """The child has imported torch and found these devices."""

    type: Literal["ready"] = "ready"
    torch: str
    cuda_devices: tuple[Gpu, ...]


class Failed(Line):
    """The training ended with an error that has a name."""

    type: Literal["failed"] = "failed"
    code: ErrorCode
    message: str
    param: str | None = None


class StorageUnavailable(Line):
    """No room for the files of the training, or no bytes of the dataset from the system; the job is not to blame."""

    type: Literal["storage_unavailable"] = "storage_unavailable"
    message: str


class Suspended(Line):
    """The training has stopped as asked, and its state was told of."""

    type: Literal["suspended"] = "suspended"


_ToChild = Train | LeaseRenewed | Suspend
_FromChild = Ready | Failed | StorageUnavailable | Suspended | TrainingEvent
ToChild = TypeAdapter[_ToChild](Annotated[_ToChild, Field(discriminator="type")])
FromChild = TypeAdapter[_FromChild](Annotated[_FromChild, Field(discriminator="type")])

EXIT_ORPHANED = 70
EXIT_LEASE_ENDED = 71
