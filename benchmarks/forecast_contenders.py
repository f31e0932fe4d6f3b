"""The networks that a benchmark of forecasts compares: dense and sparse ones, with each choice of kernels."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed_job import Spread
from pals_core.checkpoint.file import Checkpoint, read_checkpoint
from pals_core.compaction.compact import Part, compact
from pals_core.data.table import Table
from pals_core.data.windows import Batch, make_windows
from pals_core.evaluation.measure import measure
from pals_core.evaluation.origins import origins_of_test
from pals_core.evaluation.seasonal import learn_season
from pals_core.forecast.forecaster import fast_network
from pals_core.forecast.typical import typical_inputs
from pals_core.heap import give_freed_memory_back, keep_freed_memory
from pals_core.kernels.choice import Kernels
from pals_core.kernels.report import KernelReport

# A call shorter than this is repeated, and the median taken.
SECONDS_OF_A_ROUND = 0.15
CALLS_OF_A_ROUND = 30


@dataclass(frozen=True)
class Contender:
    """One network, ready to forecast batches of one size; without a report it is PyTorch's, eager and in fp32."""

    target: float  # sparsity asked for; 0 of the dense twin
    kernels: Kernels
    checkpoint: Checkpoint
    model: nn.Module
    inputs: Sequence[Tensor]
    report: KernelReport | None
    seconds_to_choose: float

    @property
    def weight_bytes(self) -> int:
        """Bytes of parameters, those of linear layers as their kernels keep them."""
        parameters = sum(parameter.nbytes for parameter in self.model.parameters())
        if self.report is None:
            return parameters
        return parameters + sum(layer.bytes for layer in self.report.layers if layer.kernel != "dense")


def contender(path: Path, target: float, kernels: Kernels, batch: int) -> Contender:
    """Load a checkpoint as `load_forecaster` does."""
    checkpoint = read_checkpoint(path)
    inputs = typical_inputs(checkpoint, batch)
    if kernels is Kernels.TORCH:
        return Contender(target, kernels, checkpoint, checkpoint.build(), inputs, None, 0.0)
    began = time.perf_counter()
    model, report = fast_network(checkpoint, inputs, kernels)
    return Contender(target, kernels, checkpoint, model, inputs, report, time.perf_counter() - began)


def contenders(paths: Mapping[float, Path], batch: int) -> Iterator[Contender]:
    """Yield the dense twin with every choice, and each sparse network with the ones that are ours."""
    for target, path in paths.items():
        for kernels in Kernels:
            if target == 0 or kernels is not Kernels.TORCH:
                yield contender(path, target, kernels, batch)


@torch.inference_mode()
def race(field: Sequence[Contender], rounds: int) -> list[list[float]]:
    """Return the seconds of a forecast in each round, by contender; within a round they follow one another.

    Freed memory is kept for ours, as `load_forecaster` has it, and not for PyTorch's; a call before those that are
    timed has it taken from the system.
    """
    seconds: list[list[float]] = [[] for _ in field]
    for _ in range(rounds):
        for each, found in zip(field, seconds, strict=True):
            give_freed_memory_back() if each.report is None else keep_freed_memory()
            each.model(*each.inputs)
            calls: list[float] = []
            while not calls or (sum(calls) < SECONDS_OF_A_ROUND and len(calls) < CALLS_OF_A_ROUND):
                began = time.perf_counter()
                each.model(*each.inputs)
                calls.append(time.perf_counter() - began)
            found.append(statistics.median(calls))
    return seconds


def mse_of_test(each: Contender, table: Table, model: nn.Module) -> float:
    """Return the mean squared error over every window of the test part, in scaled units."""
    windows = make_windows(table, each.checkpoint.header.spec.data)

    def forecast(batch: Batch) -> Tensor:
        said: Tensor = model(batch.x_enc, batch.x_mark_enc, batch.x_dec, batch.x_mark_dec)
        return said

    return measure(forecast, origins_of_test(windows), learn_season(windows), None).mse


def compared(paths: Mapping[float, Path], table: Table, batch: int, rounds: int) -> list[dict[str, Any]]:
    """Measure every contender; ratios are to the dense twin with PyTorch's kernels, each within its round."""
    field = list(contenders(paths, batch))
    seconds = race(field, rounds)
    yardstick = seconds[0]
    first = {each.target: each for each in reversed(field)}
    errors = {target: mse_of_test(each, table, each.checkpoint.build()) for target, each in first.items()}
    rows = []
    for each, found in zip(field, seconds, strict=True):
        mse = mse_of_test(each, table, each.model)
        row = {
            "target": each.target,
            "sparsity": each.checkpoint.header.sparsity,
            "kernels": str(each.kernels),
            "milliseconds": vars(Spread.of([1e3 * one for one in found])),
            "windows_per_second": batch / statistics.median(found),
            "times_as_fast": vars(Spread.of([dense / one for dense, one in zip(yardstick, found, strict=True)])),
            "weight_bytes": each.weight_bytes,
            "mse": mse,
            "mse_change": mse / errors[each.target] - 1,
            "seconds_to_choose": each.seconds_to_choose,
        }
        if each.report is not None:
            removed = compact(each.checkpoint).report
            row |= {
                "layers": each.report.to_frame().reset_index().to_dict(orient="records"),
                "bfloat16_blocks": each.report.bfloat16_blocks,
                "neurons_removed": removed.removed(Part.NEURONS),
                "heads_removed": removed.removed(Part.HEADS),
            }
        rows.append(row)
    return rows
