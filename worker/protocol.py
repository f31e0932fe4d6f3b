"""What a supervisor and its training process say to each other: one JSON object a line.

To the child, on its standard input: one Train, then a LeaseRenewed at each renewal. The input's end
means that the supervisor is gone. From the child: Ready once torch is imported, then the training's
events, or Failed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from pals_core.errors import ErrorCode
from pals_core.training.events import (
    CheckpointSaved,
    EpochEnd,
    Finished,
    MaskUpdate,
    Message,
    Progress,
    Started,
    StateSaved,
)


class Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Train(Line):
    """Train this, in `output_dir`; stop unless the lease is renewed within `lease_seconds`."""

    type: Literal["train"] = "train"
    spec: dict[str, Any]
    table_path: str
    dataset_sha256: str
    output_dir: str
    threads: int
    lease_seconds: float


class LeaseRenewed(Line):
    """The job is yours for `seconds` from now on."""

    type: Literal["lease"] = "lease"
    seconds: float


class Ready(Line):
    """The child has imported torch and found these devices."""

    type: Literal["ready"] = "ready"
    torch: str
    cuda_devices: tuple[str, ...]


class Failed(Line):
    """The training ended with an error that has a name."""

    type: Literal["failed"] = "failed"
    code: ErrorCode
    message: str
    param: str | None = None


ToChild = TypeAdapter[Train | LeaseRenewed](Annotated[Train | LeaseRenewed, Field(discriminator="type")])
FromChild = TypeAdapter[
    Ready | Failed | Started | Progress | MaskUpdate | EpochEnd | CheckpointSaved | StateSaved | Message | Finished
](
    Annotated[
        Ready | Failed | Started | Progress | MaskUpdate | EpochEnd | CheckpointSaved | StateSaved | Message | Finished,
        Field(discriminator="type"),
    ]
)

EXIT_ORPHANED = 70
EXIT_LEASE_ENDED = 71
