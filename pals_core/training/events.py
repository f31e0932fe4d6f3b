"""What a training says while it runs; plain data that also travels as JSON lines, free of torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from pals_core.checkpoint.header import Metrics as Metrics
from pals_core.checkpoint.header import OriginalMetrics as OriginalMetrics
from pals_core.sparsity.decision import Move as Move
from pals_core.spec import Precision
from pals_core.training.arithmetic import Products


class Event(BaseModel):
    """Base: immutable; steps count optimiser steps from 1, epochs from 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Started(Event):
    type: Literal["started"] = "started"
    total_steps: int
    steps_per_epoch: int
    epochs: int
    device: str
    threads: int
    precision: Precision = Field(description="Of matrix products: fp32 or bf16.")
    products: Products = Field(description="Whose fp32 products linear layers use: PyTorch's own or oneDNN's.")
    compiled: bool
    total_parameters: int
    maskable_parameters: int
    sparsity: float
    resumed_step: int | None = Field(None, description="Steps done before, when the training was resumed.")
    reproducible: bool = Field(
        description="Whether an unbroken training in equal surroundings ends with the same bytes: on a CPU, or with "
        "deterministic, unless it was resumed in other surroundings than its state was saved in."
    )


class Progress(Event):
    """Losses of consecutive steps; `step` is the last of them, so the first is step − len + 1."""

    type: Literal["progress"] = "progress"
    step: int
    epoch: int
    train_losses: tuple[float, ...]
    sparsity: float


class MaskUpdate(Event):
    """One decision and what it changed."""

    type: Literal["mask_update"] = "mask_update"
    step: int
    epoch: int
    move: Move
    validation_loss: float | None = Field(description="Over the decision windows; null for methods without decisions.")
    best_loss: float | None = Field(description="Best decision loss before this one; null at the first.")
    best_sparsity: float | None
    prune_rate: float = Field(description="ζ(t); 0 for methods that regrow nothing.")
    sparsity_before: float
    sparsity: float
    pruned: int
    grown: int


class EpochEnd(Event):
    type: Literal["epoch"] = "epoch"
    epoch: int
    step: int
    train_loss: float
    validation_loss: float = Field(description="Over every validation window.")
    sparsity: float
    learning_rate: float
    masks_frozen: bool
    is_best: bool = Field(description="Lowest validation loss so far among epochs sparse enough for the method.")


class Result(BaseModel):
    """What a training reached; describes the best checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: Metrics
    validation_loss: float
    epoch: int
    step: int
    sparsity: float = Field(description="Share of maskable weights that are off.")
    share_of_all_parameters: float = Field(description="Share of all parameters that are off.")
    reached_target: bool = Field(
        description="False when no epoch reached the method's sparsity, or PALS's min_sparsity, and any could be best."
    )
    active_parameters: int
    maskable_parameters: int
    total_parameters: int
    flops_dense: int = Field(description="FLOPs of one forecast if every weight were on.")
    flops_sparse: int = Field(description="FLOPs of one forecast when weights that are off cost nothing.")
    average_density: float = Field(description="Mean density over the training steps.")
    checkpoint_bytes: int
    dense_bytes: int = Field(description="The same parameters dense, as they are trained.")


class CheckpointSaved(Event):
    """A checkpoint file is complete on disk in the training's output folder."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int
    epoch: int
    path: str
    is_best: bool
    is_last: bool
    sparsity: float
    validation_loss: float
    result: Result | None = Field(None, description="Test metrics; only for the best one, once training ended.")
    evaluation_path: str | None = Field(None, description="File of its `Evaluation` as JSON; with `result` alone.")


class StateSaved(Event):
    """All that a training needs to go on after `step` is in one file in its output folder; see `Trainer`."""

    type: Literal["state_saved"] = "state_saved"
    step: int
    path: str


class Message(Event):
    type: Literal["message"] = "message"
    level: Literal["info", "warning", "error"] = "info"
    message: str


class Finished(Event):
    type: Literal["finished"] = "finished"
    result: Result
    stopped_early: bool


TrainingEvent = Annotated[
    Started | Progress | MaskUpdate | EpochEnd | CheckpointSaved | StateSaved | Message | Finished,
    Field(discriminator="type"),
]
TRAINING_EVENT: TypeAdapter[TrainingEvent] = TypeAdapter(TrainingEvent)
