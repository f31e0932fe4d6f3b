"""What a checkpoint can be written as; plain names that every process reads."""

from __future__ import annotations

from enum import StrEnum

from pals_core.checkpoint.header import StoredPrecision


class ExportFormat(StrEnum):
    """A format; only the packed one comes in precisions other than fp32."""

    PACKED = "packed"  # a checkpoint file
    DENSE = "dense"  # safetensors under the model's own names
    ONNX = "onnx"
    CARD = "card"  # a model card with its pictures, zipped

    def has(self, precision: StoredPrecision) -> bool:
        """Whether the format is written in this precision."""
        return self is ExportFormat.PACKED or precision is StoredPrecision.FP32

    def suffix(self, precision: StoredPrecision = StoredPrecision.FP32) -> str:
        """How a file's name ends."""
        if self is ExportFormat.PACKED:
            return ".pals.safetensors" if precision is StoredPrecision.FP32 else f".{precision}.pals.safetensors"
        return {ExportFormat.DENSE: ".dense.safetensors", ExportFormat.ONNX: ".onnx", ExportFormat.CARD: ".card.zip"}[
            self
        ]
