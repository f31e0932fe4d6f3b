"""The optimisation recipe."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, model_validator

from pals_core.spec.frozen import FrozenSpec


class Precision(StrEnum):
    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


class Compilation(StrEnum):
    AUTO = "auto"
    OFF = "off"


class DeviceChoice(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Optimizer(StrEnum):
    ADAM = "adam"
    ADAMW = "adamw"


class LearningRateSchedule(StrEnum):
    HALVING = "halving"
    COSINE = "cosine"
    CONSTANT = "constant"


class TrainingSpec(FrozenSpec):
    """The optimisation recipe; the defaults are the paper's: Adam, its rate halved every epoch from the third on."""

    epochs: int = Field(10, ge=1, le=10_000, description="Most passes over the training windows.")
    patience: int = Field(3, ge=1, le=10_000, description="Epochs without a better validation loss before stopping.")
    batch_size: int = Field(32, ge=1, le=65_536, description="Windows per optimiser step.")
    optimizer: Optimizer = Field(Optimizer.ADAM, description="Adam, or AdamW, which also decays weights.")
    weight_decay: float | None = Field(
        None, ge=0, le=1, description="Share of the learning rate by which AdamW decays weights; 0.01 unless given."
    )
    learning_rate: float = Field(1e-4, gt=0, le=10, description="The optimiser's step size, before its schedule.")
    schedule: LearningRateSchedule = Field(
        LearningRateSchedule.HALVING,
        description="Halve the learning rate every epoch from the third on, take it along a cosine to 0, or keep it.",
    )
    warmup_steps: int = Field(
        0, ge=0, le=10_000_000, description="Steps in which the learning rate rises in equal steps to its schedule."
    )
    gradient_clip: float | None = Field(
        None, gt=0, le=1e6, description="Largest norm of the gradient of the active weights; null leaves it alone."
    )
    # torch's generator takes 32 bits of it: larger ones would train the networks of smaller ones.
    seed: int = Field(2020, ge=0, le=2**32 - 1, description="Seeds initial weights, shuffling and dropout.")
    precision: Precision = Field(
        Precision.AUTO,
        description="Arithmetic of matrix products: single precision, or bfloat16 with weights, moments and masks in "
        "single precision; auto takes what is faster on the worker's hardware.",
    )
    compile: Compilation = Field(
        Compilation.AUTO, description="auto compiles the network where that pays, on a GPU with Triton; off never does."
    )
    device: DeviceChoice = Field(DeviceChoice.AUTO, description="auto takes a GPU where the worker has one.")
    deterministic: bool = Field(
        False, description="Repeat trainings bit for bit on a GPU too, more slowly; on a CPU they always do."
    )

    @model_validator(mode="after")
    def _decay_needs_adamw(self) -> TrainingSpec:
        if self.weight_decay is not None and self.optimizer is not Optimizer.ADAMW:
            raise ValueError(f"weight_decay is for adamw; the optimizer is {self.optimizer}")
        return self
