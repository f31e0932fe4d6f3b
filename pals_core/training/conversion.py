"""A checkpoint in another precision, and what that does to its test errors; its weights as plain dense tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pals_core.checkpoint.container import DENSE_KEY
from pals_core.checkpoint.file import Checkpoint
from pals_core.checkpoint.header import Metrics, StoredPrecision
from pals_core.checkpoint.tensor_file import write_tensors
from pals_core.checkpoint.values import compress, spread
from pals_core.data.table import Table
from pals_core.data.windows import SplitWindows, make_windows, windows_at_once
from pals_core.errors import InvalidCheckpoint, InvalidTable, Problem
from pals_core.evaluation.measure import measure
from pals_core.evaluation.origins import origins_of_test
from pals_core.evaluation.seasonal import learn_season
from pals_core.torch_defaults import own_torch_defaults
from pals_core.training.arithmetic import Arithmetic
from pals_core.training.forward import ForwardPass

_CPU = torch.device("cpu")


@own_torch_defaults()
def in_precision(checkpoint: Checkpoint, precision: StoredPrecision, series: Table | None = None) -> Checkpoint:
    """Return the network with its active values rounded to `precision`.

    With `series`, the table it was trained on, both networks are evaluated on every window of the test part, and the
    header says what was measured: `metrics` and `mse_change`. Without, both are null: nobody knows. Raises
    InvalidCheckpoint for a checkpoint that is rounded already or has a weight too large, and InvalidTable when `series`
    is another one.
    """
    header = checkpoint.header
    if header.precision is not StoredPrecision.FP32:
        raise InvalidCheckpoint(f"the checkpoint is in {header.precision} already; convert the one in fp32")
    layers = {
        name: checkpoint.masks.layer(name, checkpoint.weights[name], layer.flops_dense, precision)
        for name, layer in header.layers.items()
    }
    rounded = replace(
        checkpoint,
        header=header.model_copy(update={"precision": precision, "layers": layers}),
        weights=dict(checkpoint.weights) | {name: _rounded(checkpoint, name, precision) for name in header.layers},
    )
    if precision is StoredPrecision.FP32:
        return rounded
    metrics, change = None, None
    if series is not None:
        windows = _windows(checkpoint, series)
        before, metrics = _test_errors(checkpoint, windows).mse, _test_errors(rounded, windows)
        change = metrics.mse / before - 1 if before else None
    return replace(rounded, header=rounded.header.model_copy(update={"metrics": metrics, "mse_change": change}))


def write_dense(path: Path, checkpoint: Checkpoint) -> int:
    """Write the weights as safetensors under the model's own names and return the size in bytes.

    Inactive weights are zeros. `load_state_dict` takes the tensors directly: a shared one is there under each of its
    names. The file's metadata hold the checkpoint's description under `pals_dense`.
    """
    state = checkpoint.build().state_dict()
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    return write_tensors(path, DENSE_KEY, checkpoint.header.model_dump_json(), tensors)


def _rounded(checkpoint: Checkpoint, name: str, precision: StoredPrecision) -> torch.Tensor:
    weight, mask = checkpoint.weights[name], checkpoint.masks[name]
    stored, scales = compress(weight, mask, precision)
    rounded = torch.zeros_like(weight)
    spread(lambda first, stop: stored[first:stop], scales, mask, rounded)
    return rounded


def _windows(checkpoint: Checkpoint, series: Table) -> SplitWindows:
    """Return the windows of the training; raises InvalidTable when they are not cut from the same values."""
    header, data = checkpoint.header, checkpoint.header.spec.data
    if missing := [name for name in (*header.columns, *data.known_future) if name not in series.columns]:
        message = f"the series has no column {missing[0]!r}, which the checkpoint was trained on"
        raise InvalidTable(message, (Problem(message, column=missing[0]),))
    at_once = windows_at_once(header.spec.training.batch_size)
    windows = make_windows(series.select(header.columns, data.known_future), data, at_once=at_once)
    learnt = np.array([header.scaler_mean, header.scaler_std])
    differ = ~np.isclose(np.array([windows.scaler.mean, windows.scaler.std]), learnt, rtol=1e-9, atol=0).all(axis=0)
    if windows.frequency != header.frequency or differ.any():
        column = header.columns[int(np.argmax(differ))]
        message = (
            "this is not the series that the checkpoint was trained on: its training part has another mean or "
            f"standard deviation in column {column!r}, or another frequency; give the same rows"
        )
        raise InvalidTable(message, (Problem(message, column=column),))
    return windows


def _test_errors(checkpoint: Checkpoint, windows: SplitWindows) -> Metrics:
    forward = ForwardPass(checkpoint.build().eval(), _CPU, Arithmetic())
    return measure(forward, origins_of_test(windows), learn_season(windows), None).evaluation().metrics
