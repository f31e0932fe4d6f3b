"""The files of one training: a checkpoint per epoch, of which the best and the last are kept, and the evaluation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from pals_core.checkpoint.calibration import Calibration
from pals_core.checkpoint.file import Checkpoint, PackedMasks, read_checkpoint, stored_tensors, write_checkpoint
from pals_core.checkpoint.header import CheckpointHeader, EpochSummary, Metrics, StoredPrecision, summary_of
from pals_core.checkpoint.tensor_file import replacing
from pals_core.data.frequency import calendar_feature_names
from pals_core.data.groups import grouped
from pals_core.data.lengths import window_lengths
from pals_core.data.missing import fill_missing
from pals_core.data.scaling import Scaler
from pals_core.data.split import Part, split_rows
from pals_core.data.table import Table
from pals_core.evaluation.document import Evaluation
from pals_core.evaluation.seasonal import Season
from pals_core.flops import FlopCount
from pals_core.spec import DataSpec, Spec
from pals_core.training.surroundings import versions


@dataclass
class EpochCheckpoints:
    """Writes `epoch-NNN.pals.safetensors` into `folder`; removes only files it wrote itself."""

    folder: Path
    spec: Spec
    scaler: Scaler  # of each column
    known_future: Scaler  # of each group's known-future columns
    season: Season
    series_ends: tuple[Table, ...]  # of each group
    dataset_sha256: str | None
    resampled_from: str | None
    flops: FlopCount

    def __post_init__(self) -> None:
        self._written: set[int] = set()

    def path(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:03}.pals.safetensors"

    def save(self, model: nn.Module, masks: PackedMasks, epochs: Sequence[EpochSummary]) -> Path:
        """Write the network as it is after these epochs; returns the file."""
        epoch, precision = epochs[-1].epoch, StoredPrecision.FP32
        weights = {name: tensor.detach().cpu() for name, tensor in stored_tensors(model).items()}
        known_future, frequency = self.spec.data.known_future, self.series_ends[0].frequency
        header = CheckpointHeader(
            spec=self.spec,
            columns=tuple(name for end in self.series_ends for name in end.columns if name not in known_future),
            frequency=frequency,
            resampled_from=self.resampled_from,
            calendar_features=calendar_feature_names(frequency),
            scaler_mean=tuple(self.scaler.mean.tolist()),
            scaler_std=tuple(self.scaler.std.tolist()),
            known_future_mean=tuple(map(tuple, self.known_future.mean.tolist())) if known_future else (),
            known_future_std=tuple(map(tuple, self.known_future.std.tolist())) if known_future else (),
            season=self.season.length,
            naive_errors=tuple(None if np.isnan(error) else error for error in self.season.errors.tolist()),
            trace=summary_of(epochs),
            layers={name: masks.layer(name, weights[name], self.flops.of_weights[name], precision) for name in masks},
            precision=precision,
            products=self.flops.products,
            total_parameters=sum(parameter.numel() for parameter in model.parameters()),
            dataset_sha256=self.dataset_sha256,
            library_versions=versions(),
        )
        write_checkpoint(self.path(epoch), Checkpoint(header, weights, masks, self.series_ends))
        self._written.add(epoch)
        return self.path(epoch)

    def load(self, epoch: int) -> Checkpoint:
        return read_checkpoint(self.path(epoch))

    def add_results(self, epoch: int, checkpoint: Checkpoint, metrics: Metrics, calibration: Calibration | None) -> int:
        """Write an epoch's file again with its test errors and its calibration; returns its size in bytes."""
        header = checkpoint.header.model_copy(update={"metrics": metrics, "calibration": calibration})
        return write_checkpoint(self.path(epoch), replace(checkpoint, header=header))

    def save_evaluation(self, epoch: int, evaluation: Evaluation) -> Path:
        """Write `epoch-NNN.evaluation.json`; returns the file."""
        path = self.folder / f"epoch-{epoch:03}.evaluation.json"
        with replacing(path) as part:
            part.write_text(evaluation.model_dump_json(), encoding="utf-8")
        return path

    def restore(self, file: bytes | None, best: int, last: int) -> None:
        """Take up a training interrupted after epoch `last`: write its `best` epoch's file, own what else is left."""
        if file is not None:
            with replacing(self.path(best)) as part:
                part.write_bytes(file)
        self._written = {epoch for epoch in range(1, last + 1) if self.path(epoch).exists()}

    def keep(self, epochs: Collection[int]) -> None:
        """Remove the files of all other epochs."""
        for epoch in self._written.difference(epochs):
            self.path(epoch).unlink(missing_ok=True)
        self._written.intersection_update(epochs)


def series_ends(table: Table, data: DataSpec) -> tuple[Table, ...]:
    """Return the last input_len steps of each group of columns, filled as in training, in the data's units."""
    return tuple(_end(group, data) for group in grouped(table, data))


def _end(group: Table, data: DataSpec) -> Table:
    steps, needed = len(group.times), window_lengths(data).input_len
    parts = split_rows(steps, data.split)
    to_the_end = replace(parts, test=Part(parts.test.start, steps))
    values = fill_missing(group.values, to_the_end, data.missing, group.columns)
    return Table(group.times[-needed:], values[-needed:], group.columns, group.frequency)
