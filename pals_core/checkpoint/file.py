"""The packed sparse checkpoint file, `*.pals.safetensors`: writing it atomically, reading it as hostile input.

A maskable parameter is stored as `<name>.compressed` (active values), `<name>.bitmask` and `<name>.shape`, any other
parameter or persistent buffer as it is. `series.values`, [G, L, C], and `series.times`, [G, L] (microseconds since
1970), hold the last L = input_len steps of each of the G groups of columns that go through the network together,
known-future columns last; from there a forecast without data goes on. `digest` is the SHA-256 of the description and
all other tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pals_core.checkpoint.container import HEADER_KEY, header_text, parse_header
from pals_core.checkpoint.header import CheckpointHeader
from pals_core.checkpoint.packing import count_bits, pack, unpack
from pals_core.checkpoint.tensor_file import read_tensors, write_tensors
from pals_core.data.lengths import window_lengths
from pals_core.data.table import Table
from pals_core.errors import InvalidCheckpoint
from pals_core.models.registry import build_forecaster
from pals_core.sparsity.masks import is_maskable
from pals_core.spec import MissingPolicy

# Constants such as positions follow from the spec and are not in the file, so the file's size does not bound them.
MAX_DERIVED_BYTES = 2**30


@dataclass(frozen=True)
class Checkpoint:
    """One trained network: its description, dense weights with zeros where inactive, masks, and the series' end."""

    header: CheckpointHeader
    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    series_ends: tuple[Table, ...]  # the last input_len steps of each group of columns, in the data's units

    def build(self) -> nn.Module:
        """Return the network in evaluation mode; leaves the global random state as it was."""
        with torch.random.fork_rng(devices=()):
            model = _build(self.header)
        self.load_into(model)
        return model.eval()

    @torch.no_grad()
    def load_into(self, model: nn.Module) -> None:
        """Copy the weights into a network of the same spec, on any device."""
        for name, tensor in stored_tensors(model).items():
            tensor.copy_(self.weights[name])


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return what a checkpoint keeps of a network: each parameter and each persistent buffer once."""
    state = model.state_dict()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in state}
    return dict(model.named_parameters()) | buffers


def dtype_name(tensor: Tensor) -> str:
    """Return what a header calls the type of a tensor's elements, such as `float32`."""
    return str(tensor.dtype).removeprefix("torch.")


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> int:
    """Write a checkpoint so that `path` is never half a file, and return its size in bytes."""
    ends = checkpoint.series_ends
    tensors: dict[str, Tensor] = {
        "series.values": torch.tensor(np.stack([end.values for end in ends]), dtype=torch.float64),
        "series.times": torch.tensor(np.stack([end.times.as_unit("us").asi8 for end in ends]), dtype=torch.int64),
    }
    for name, weight in checkpoint.weights.items():
        if name in checkpoint.masks:
            tensors[f"{name}.compressed"], tensors[f"{name}.bitmask"] = pack(weight, checkpoint.masks[name])
            tensors[f"{name}.shape"] = torch.tensor(weight.shape, dtype=torch.int64)
        else:
            tensors[name] = weight.contiguous()
    text = checkpoint.header.model_dump_json()
    return write_tensors(path, HEADER_KEY, text, tensors)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint; its weights are bit for bit those that were written.

    Raises InvalidCheckpoint for whatever is truncated, damaged, of another version, or disagrees with itself, before
    memory is taken that the file's own size does not justify; FileNotFoundError when there is no file.
    """
    text = header_text(path)
    header = parse_header(text)
    try:
        with torch.device("meta"):
            model = _build(header)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise InvalidCheckpoint("the checkpoint's spec describes a network that cannot be built") from error
    expected = stored_tensors(model)
    _check_description(header, model, expected)

    tensors = read_tensors(path, text, _container_names(header, expected))
    weights: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    bounds = _index_bounds(model)
    for name, like in expected.items():
        if name in header.layers:
            _check_packed(name, header.layers[name].active, like, tensors)
            weights[name], masks[name] = unpack(
                tensors[f"{name}.compressed"], tensors[f"{name}.bitmask"], tuple(like.shape)
            )
        else:
            _check_plain(name, like, tensors[name])
            if name in bounds and not bool(((tensors[name] >= 0) & (tensors[name] < bounds[name])).all()):
                raise InvalidCheckpoint(f"{name} holds an index outside of 0 to {bounds[name] - 1}")
            weights[name] = tensors[name]
    return Checkpoint(header, weights, masks, _series_ends(header, tensors))


def _build(header: CheckpointHeader) -> nn.Module:
    return build_forecaster(header.spec, len(header.groups[0]), header.features)


def _container_names(header: CheckpointHeader, expected: Mapping[str, Tensor]) -> set[str]:
    packed = {f"{name}.{part}" for name in header.layers for part in ("compressed", "bitmask", "shape")}
    return packed | {name for name in expected if name not in header.layers} | {"series.values", "series.times"}


def _check_description(header: CheckpointHeader, model: nn.Module, expected: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    maskable = {name: value for name, value in parameters.items() if is_maskable(name, value)}
    layers = {name: (tuple(value.shape), dtype_name(value)) for name, value in maskable.items()}
    if {name: (layer.shape, layer.dtype) for name, layer in header.layers.items()} != layers:
        raise InvalidCheckpoint("the checkpoint's layers are not those of the network its spec describes")
    if header.total_parameters != sum(parameter.numel() for parameter in parameters.values()):
        raise InvalidCheckpoint("the checkpoint's parameter count is not that of the network its spec describes")
    derived = sum(buffer.nbytes for name, buffer in model.named_buffers() if name not in expected)
    if derived > MAX_DERIVED_BYTES:
        raise InvalidCheckpoint(
            f"the network would need {derived} bytes of constants; at most {MAX_DERIVED_BYTES} are made"
        )


def _index_bounds(model: nn.Module) -> dict[str, int]:
    """The first index that is too large, by name of each buffer that holds indices."""
    return {
        f"{prefix}.{name}": bound
        for prefix, module in model.named_modules()
        for name, bound in getattr(module, "index_bounds", {}).items()
    }


def _check_packed(name: str, active: int, like: Tensor, tensors: Mapping[str, Tensor]) -> None:
    values, bitmask, shape = (tensors[f"{name}.{part}"] for part in ("compressed", "bitmask", "shape"))
    if shape.dtype != torch.int64 or shape.ndim != 1 or shape.tolist() != list(like.shape):
        raise InvalidCheckpoint(f"the shape of {name} is not {tuple(like.shape)}, which its spec gives")
    if bitmask.dtype != torch.uint8 or tuple(bitmask.shape) != (math.ceil(like.numel() / 8),):
        raise InvalidCheckpoint(f"the bitmask of {name} does not fit its {like.numel()} weights")
    spare = -like.numel() % 8
    if spare and int(bitmask[-1]) >> (8 - spare):
        raise InvalidCheckpoint(f"the bitmask of {name} marks weights beyond its last one")
    if values.dtype != like.dtype or not tuple(values.shape) == (count_bits(bitmask),) == (active,):
        raise InvalidCheckpoint(f"{name} has {len(values) if values.ndim else 1} values; other counts say {active}")
    _check_finite(name, values)


def _check_plain(name: str, like: Tensor, tensor: Tensor) -> None:
    if tensor.dtype != like.dtype or tensor.shape != like.shape:
        raise InvalidCheckpoint(f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; its spec gives otherwise")
    _check_finite(name, tensor)


def _check_finite(name: str, tensor: Tensor) -> None:
    if not tensor.isfinite().all():
        raise InvalidCheckpoint(f"{name} holds a value that is not finite")


def _series_ends(header: CheckpointHeader, tensors: Mapping[str, Tensor]) -> tuple[Table, ...]:
    values, microseconds = tensors["series.values"], tensors["series.times"]
    data = header.spec.data
    groups = [(*group, *data.known_future) for group in header.groups]
    shape = (len(groups), window_lengths(data).input_len)
    if values.dtype != torch.float64 or tuple(values.shape) != (*shape, len(groups[0])):
        raise InvalidCheckpoint(
            f"the series' end is not {shape[1]} steps of {len(groups[0])} columns, {shape[0]} times"
        )
    if microseconds.dtype != torch.int64 or tuple(microseconds.shape) != shape:
        raise InvalidCheckpoint(f"the series' end does not have {shape[1]} time steps, {shape[0]} times")
    masked = data.missing is MissingPolicy.MASK
    _check_finite("the series' end", values.nan_to_num(posinf=torch.inf, neginf=-torch.inf) if masked else values)
    grids: dict[bytes, pd.DatetimeIndex] = {}
    ends = []
    for columns, of_group, steps in zip(groups, values.numpy(), microseconds.numpy(), strict=True):
        if (key := steps.tobytes()) not in grids:
            times = pd.DatetimeIndex(steps.view("datetime64[us]"))
            if times.hasnans or not _is_grid(times, header.frequency):
                raise InvalidCheckpoint(f"the times of the series' end are not on a {header.frequency} grid")
            grids[key] = times
        ends.append(Table(grids[key], np.array(of_group), columns, header.frequency))
    return tuple(ends)


def _is_grid(times: pd.DatetimeIndex, frequency: str) -> bool:
    try:
        expected = pd.date_range(times[0], periods=len(times), freq=frequency)
        return bool((expected.as_unit("us") == times).all()) and 1 <= times[0].year <= times[-1].year <= 9999
    except (ValueError, OverflowError):  # a time beyond what the calendar can hold
        return False
