"""PALS: sparse time-series forecasters whose sparsity is found during training (arXiv 2305.18382).

Names are imported when first used, so that `import pals_core` loads neither torch nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pals_core.checkpoint.container import read_header
    from pals_core.checkpoint.file import Checkpoint, read_checkpoint
    from pals_core.checkpoint.header import CheckpointHeader
    from pals_core.compaction.compact import Compacted, CompactionReport, compact
    from pals_core.data.audit import audit_table
    from pals_core.data.table import Table, read_table
    from pals_core.errors import (
        ExportFailed,
        InvalidCheckpoint,
        InvalidForecastInput,
        InvalidSpec,
        InvalidTable,
        PalsError,
        Problem,
        TrainingFailed,
    )
    from pals_core.evaluation.document import Evaluation
    from pals_core.export.card import model_card
    from pals_core.export.onnx import OnnxExport, export_onnx
    from pals_core.forecast.backtest import backtest
    from pals_core.forecast.forecaster import Forecast, Forecaster, Interval, load_forecaster
    from pals_core.kernels.choice import Kernels
    from pals_core.kernels.report import KernelReport
    from pals_core.spec import Spec
    from pals_core.training.events import TrainingEvent
    from pals_core.training.train import Trained, train
    from pals_core.training.trainer import Trainer

_HOMES = {
    "Checkpoint": "pals_core.checkpoint.file",
    "CheckpointHeader": "pals_core.checkpoint.header",
    "Compacted": "pals_core.compaction.compact",
    "CompactionReport": "pals_core.compaction.compact",
    "ExportFailed": "pals_core.errors",
    "Evaluation": "pals_core.evaluation.document",
    "Forecast": "pals_core.forecast.forecaster",
    "Forecaster": "pals_core.forecast.forecaster",
    "Interval": "pals_core.forecast.forecaster",
    "InvalidCheckpoint": "pals_core.errors",
    "InvalidForecastInput": "pals_core.errors",
    "InvalidSpec": "pals_core.errors",
    "InvalidTable": "pals_core.errors",
    "KernelReport": "pals_core.kernels.report",
    "Kernels": "pals_core.kernels.choice",
    "OnnxExport": "pals_core.export.onnx",
    "PalsError": "pals_core.errors",
    "Problem": "pals_core.errors",
    "Spec": "pals_core.spec",
    "Table": "pals_core.data.table",
    "Trained": "pals_core.training.train",
    "Trainer": "pals_core.training.trainer",
    "TrainingEvent": "pals_core.training.events",
    "TrainingFailed": "pals_core.errors",
    "audit_table": "pals_core.data.audit",
    "compact": "pals_core.compaction.compact",
    "export_onnx": "pals_core.export.onnx",
    "backtest": "pals_core.forecast.backtest",
    "load_forecaster": "pals_core.forecast.forecaster",
    "model_card": "pals_core.export.card",
    "read_checkpoint": "pals_core.checkpoint.file",
    "read_header": "pals_core.checkpoint.container",
    "read_table": "pals_core.data.table",
    "train": "pals_core.training.train",
}

__all__ = [
    "Checkpoint",
    "CheckpointHeader",
    "Compacted",
    "CompactionReport",
    "Evaluation",
    "ExportFailed",
    "Forecast",
    "Forecaster",
    "Interval",
    "InvalidCheckpoint",
    "InvalidForecastInput",
    "InvalidSpec",
    "InvalidTable",
    "KernelReport",
    "Kernels",
    "OnnxExport",
    "PalsError",
    "Problem",
    "Spec",
    "Table",
    "Trained",
    "Trainer",
    "TrainingEvent",
    "TrainingFailed",
    "audit_table",
    "backtest",
    "compact",
    "export_onnx",
    "load_forecaster",
    "model_card",
    "read_checkpoint",
    "read_header",
    "read_table",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
