"""The optimisation recipe."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from pals_core.spec.frozen import FrozenSpec


class Precision(StrEnum):
    AUTO = "auto"
    FP32 = "fp32"


class DeviceChoice(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class TrainingSpec(FrozenSpec):
    """The optimisation recipe; the defaults are the paper's: Adam, its rate halved every epoch from the third on."""

    epochs: int = Field(10, ge=1, le=10_000, description="Most passes over the training windows.")
    patience: int = Field(3, ge=1, le=10_000, description="Epochs without a better validation loss before stopping.")
    batch_size: int = Field(32, ge=1, le=65_536, description="Windows per optimiser step.")
    learning_rate: float = Field(1e-4, gt=0, le=10, description="Adam's step size in the first two epochs.")
    seed: int = Field(2020, ge=0, le=2**63 - 1, description="Seeds initial weights, shuffling and dropout.")
    precision: Precision = Field(Precision.AUTO, description="Arithmetic of forward and backward passes.")
    device: DeviceChoice = Field(DeviceChoice.AUTO, description="auto takes a GPU where the worker has one.")
