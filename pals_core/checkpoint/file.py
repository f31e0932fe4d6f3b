"""The packed sparse checkpoint file, `*.pals.safetensors`: writing it atomically, reading it as hostile input.

Its layout is that of docs/checkpoint-format.md. A maskable parameter is stored as `<name>.values` (active values),
`<name>.scales` (int8 only) and `<name>.positions` (`pals_core.checkpoint.positions`), any other parameter or
persistent buffer as it is. `series.values`, [G, L, C], and `series.starts`, [G] (microseconds since 1970), hold the
last L = input_len steps of each of the G groups of columns that go through the network together, known-future columns
last; from there a forecast without data goes on.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pals_core.checkpoint.container import HEADER_KEY, parse_header
from pals_core.checkpoint.header import CheckpointHeader, MaskedLayer, StoredPrecision
from pals_core.checkpoint.positions import Code, decode_positions, encode_positions
from pals_core.checkpoint.tensor_file import TensorFile, open_tensors, write_tensors
from pals_core.checkpoint.values import STORED_TYPES, compress, spread
from pals_core.data.lengths import window_lengths
from pals_core.data.table import Table
from pals_core.errors import InvalidCheckpoint, InvalidSpec
from pals_core.models.registry import build_forecaster
from pals_core.models.without_values import WithoutValues
from pals_core.sparsity.masks import is_maskable
from pals_core.spec import MissingPolicy
from pals_core.torch_defaults import own_torch_defaults

# Constants such as positions follow from the spec and are not in the file, so the file's size does not bound them.
MAX_DERIVED_BYTES = 2**30
# Threads that unpack parameters; each has some MB at hand beside the network that comes into being.
_MOST_THREADS = 2


class PackedMasks(Mapping[str, Tensor]):
    """The masks of a checkpoint by name, in the bits that a file keeps of them; unpacked when asked for, if read."""

    def __init__(
        self,
        codes: Mapping[str, Code],
        shapes: Mapping[str, tuple[int, ...]],
        active: Mapping[str, int],
        packed: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`packed` are the masks themselves, if they are at hand."""
        self.codes = codes
        self._shapes = shapes
        self._active = active
        self._packed = packed or {}

    @classmethod
    def of(cls, masks: Mapping[str, Tensor], before: PackedMasks | None = None) -> PackedMasks:
        """Pack masks, of any device; those that are the very tensors packed `before` are not packed again."""
        codes: dict[str, Code] = {}
        active: dict[str, int] = {}
        for name, mask in masks.items():
            if before is not None and before._packed.get(name) is mask:
                codes[name], active[name] = before.codes[name], before._active[name]
            else:
                on_cpu = mask.cpu().numpy()
                codes[name], active[name] = encode_positions(on_cpu), int(np.count_nonzero(on_cpu))
        return cls(codes, {name: tuple(mask.shape) for name, mask in masks.items()}, active, dict(masks))

    def __getitem__(self, name: str) -> Tensor:
        """Return a mask of the CPU."""
        if name in self._packed:
            return self._packed[name].cpu()
        shape = self._shapes[name]
        return torch.from_numpy(decode_positions(self.codes[name], math.prod(shape), self._active[name])).view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.codes)

    def __len__(self) -> int:
        return len(self.codes)

    def layer(self, name: str, weight: Tensor, flops_dense: int, precision: StoredPrecision) -> MaskedLayer:
        """Return what a header says of the parameter `name`."""
        shape, active = self._shapes[name], self._active[name]
        reals = active * (2 if weight.is_complex() else 1)
        scales = 4 * shape[0] if precision is StoredPrecision.INT8 else 0
        return MaskedLayer(
            shape=shape,
            dtype=dtype_name(weight),
            active=active,
            flops_dense=flops_dense,
            bytes=reals * STORED_TYPES[precision].itemsize + scales + len(self.codes[name]),
        )


@dataclass(frozen=True)
class Checkpoint:
    """One trained network: its description, dense weights with zeros where inactive, masks, and the series' end.

    The weights are in float32 or complex64, whatever the precision of the file.
    """

    header: CheckpointHeader
    weights: Mapping[str, Tensor]
    masks: PackedMasks
    series_ends: tuple[Table, ...]  # the last input_len steps of each group of columns, in the data's units

    @own_torch_defaults()
    def build(self) -> nn.Module:
        """Return the network in evaluation mode; its parameters and buffers share the memory of `weights`.

        Leaves the global random state as it was.
        """
        with WithoutValues():
            model = _build(self.header)
        for name, tensor in stored_tensors(model).items():
            tensor.data = self.weights[name]
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


@own_torch_defaults()
def write_checkpoint(path: Path, checkpoint: Checkpoint) -> int:
    """Write a checkpoint so that `path` is never half a file, and return its size in bytes.

    The values are rounded to the precision that the header names. Raises InvalidCheckpoint for a weight too large for
    it.
    """
    ends, masks = checkpoint.series_ends, checkpoint.masks
    starts = [int(end.times[:1].as_unit("us").asi8[0]) for end in ends]
    tensors: dict[str, Tensor] = {
        "series.values": torch.tensor(np.stack([end.values for end in ends]), dtype=torch.float64),
        "series.starts": torch.tensor(starts, dtype=torch.int64),
    }
    for name, weight in checkpoint.weights.items():
        if name not in masks:
            tensors[name] = weight.contiguous()
            continue
        tensors[f"{name}.values"], scales = compress(weight, masks[name], checkpoint.header.precision)
        tensors[f"{name}.positions"] = torch.from_numpy(masks.codes[name])
        if scales is not None:
            tensors[f"{name}.scales"] = scales
    return write_tensors(path, HEADER_KEY, checkpoint.header.model_dump_json(), tensors)


@own_torch_defaults()
def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read and verify a checkpoint; in fp32 its weights are bit for bit those that were written.

    Raises InvalidCheckpoint for whatever is truncated, damaged, of another version, or disagrees with itself, before
    memory is taken that the file's own size does not justify; FileNotFoundError when there is no file.
    """
    with open_tensors(Path(path)) as file:
        header = parse_header(file.text)
        file.verify()
        expected, bounds = _expected(header)
        file.require(_container_names(header, expected))

        with ThreadPoolExecutor(min(_MOST_THREADS, torch.get_num_threads())) as pool:
            packed = dict(zip(header.layers, pool.map(partial(_read_packed, file, header), header.layers), strict=True))
        weights = {
            name: packed[name][0] if name in packed else _read_plain(file, name, like, bounds.get(name))
            for name, like in expected.items()
        }
        codes = {name: code for name, (_, code) in packed.items()}
        shapes = {name: layer.shape for name, layer in header.layers.items()}
        masks = PackedMasks(codes, shapes, {name: layer.active for name, layer in header.layers.items()})
        return Checkpoint(header, weights, masks, _series_ends(file, header))


def _build(header: CheckpointHeader) -> nn.Module:
    return build_forecaster(header.spec, len(header.groups[0]), header.features)


def _container_names(header: CheckpointHeader, expected: Mapping[str, Tensor]) -> set[str]:
    parts = ("values", "positions", "scales") if header.precision is StoredPrecision.INT8 else ("values", "positions")
    packed = {f"{name}.{part}" for name in header.layers for part in parts}
    return packed | {name for name in expected if name not in header.layers} | {"series.values", "series.starts"}


def _expected(header: CheckpointHeader) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return the tensors, without values, of the network that the spec describes, and the bounds of their indices.

    Raises InvalidCheckpoint when there is no such network, or the header says something else of it.
    """
    try:
        with torch.device("meta"), WithoutValues():
            model = _build(header)
    except InvalidSpec as error:
        raise InvalidCheckpoint(f"the checkpoint's spec describes no network: {error.message}") from error
    except (RuntimeError, ValueError, OverflowError, MemoryError) as error:
        raise InvalidCheckpoint("the checkpoint's spec describes a network that cannot be built") from error
    expected = stored_tensors(model)
    _check_description(header, model, expected)
    return expected, _index_bounds(model)


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


def _read_packed(file: TensorFile, header: CheckpointHeader, name: str) -> tuple[Tensor, Code]:
    """Return one dense maskable parameter and the code of its mask."""
    layer, precision, entry = header.layers[name], header.precision, file.entries[f"{name}.values"]
    scales = file.read(f"{name}.scales") if precision is StoredPrecision.INT8 else None
    if scales is not None and (scales.dtype != torch.float32 or tuple(scales.shape) != layer.shape[:1]):
        raise InvalidCheckpoint(f"{name} does not have one scale for each of its {layer.shape[0]} rows")
    if scales is not None and not (scales.isfinite() & (scales >= 0)).all():
        raise InvalidCheckpoint(f"{name} has a scale that is negative or not finite")
    is_complex = layer.dtype == "complex64"
    if entry.shape != ((layer.active, 2) if is_complex else (layer.active,)):
        raise InvalidCheckpoint(f"{name} has values of shape {entry.shape}; other counts say {layer.active}")
    code = file.read(f"{name}.positions")
    if code.dtype != torch.uint8 or code.ndim != 1:
        raise InvalidCheckpoint(f"the positions of {name} are not a row of bytes")
    if file.type_of(f"{name}.values") != STORED_TYPES[precision]:
        raise InvalidCheckpoint(f"{name} has values of {entry.dtype}; the file's precision is {precision}")
    if entry.stop - entry.start + code.nbytes + (0 if scales is None else scales.nbytes) != layer.bytes:
        raise InvalidCheckpoint(f"{name} does not take the {layer.bytes} bytes that the description says")
    try:
        mask = torch.from_numpy(decode_positions(code.numpy(), layer.weights, layer.active)).view(layer.shape)
    except InvalidCheckpoint as error:
        raise InvalidCheckpoint(f"{name}: {error.message}") from error
    weight = _zeros(layer.shape, torch.complex64 if is_complex else torch.float32)
    if layer.active == layer.weights and precision is StoredPrecision.FP32:
        file.read(f"{name}.values", weight.view(-1).view(torch.uint8))
    else:
        spread(partial(file.read_rows, f"{name}.values"), scales, mask, weight)
    _check_finite(name, weight)
    return weight, code.numpy()


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return zeros, large ones in memory of their own.

    Among the short-lived arrays on the heap they would leave holes, up to a third of what a network takes.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < 2**20:
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype).view(shape)


def _read_plain(file: TensorFile, name: str, like: Tensor, bound: int | None) -> Tensor:
    tensor = file.read(name)
    if tensor.dtype != like.dtype or tensor.shape != like.shape:
        raise InvalidCheckpoint(f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; its spec gives otherwise")
    _check_finite(name, tensor)
    if bound is not None and not bool(((tensor >= 0) & (tensor < bound)).all()):
        raise InvalidCheckpoint(f"{name} holds an index outside of 0 to {bound - 1}")
    return tensor


def _check_finite(name: str, tensor: Tensor) -> None:
    reals = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    if not reals.is_floating_point() or not reals.numel():
        return
    numbers = reals.numpy()
    if not math.isfinite(numbers.min()) or not math.isfinite(numbers.max()):  # NaN if one of them is
        raise InvalidCheckpoint(f"{name} holds a value that is not finite")


def _series_ends(file: TensorFile, header: CheckpointHeader) -> tuple[Table, ...]:
    values, starts = file.read("series.values"), file.read("series.starts")
    data = header.spec.data
    groups = [(*group, *data.known_future) for group in header.groups]
    shape = (len(groups), window_lengths(data).input_len)
    if values.dtype != torch.float64 or tuple(values.shape) != (*shape, len(groups[0])):
        raise InvalidCheckpoint(
            f"the series' end is not {shape[1]} steps of {len(groups[0])} columns, {shape[0]} times"
        )
    if starts.dtype != torch.int64 or tuple(starts.shape) != shape[:1]:
        raise InvalidCheckpoint(f"the series' end does not begin at {shape[0]} times")
    masked = data.missing is MissingPolicy.MASK
    _check_finite("the series' end", values.nan_to_num(posinf=torch.inf, neginf=-torch.inf) if masked else values)
    grids = {start: _grid(start, shape[1], header.frequency) for start in dict.fromkeys(starts.tolist())}
    return tuple(
        Table(grids[start], np.array(of_group), columns, header.frequency)
        for columns, of_group, start in zip(groups, values.numpy(), starts.tolist(), strict=True)
    )


def _grid(start: int, steps: int, frequency: str) -> pd.DatetimeIndex:
    """Return so many steps of a frequency from `start` on, in microseconds since 1970; raises InvalidCheckpoint."""
    first = pd.DatetimeIndex(np.array([start]).view("datetime64[us]"))
    try:
        times = pd.date_range(first[0], periods=steps, freq=frequency).as_unit("us")
        if times[0] == first[0] and 1 <= times[0].year <= times[-1].year <= 9999:
            return times
    except (ValueError, OverflowError):  # a time beyond what the calendar can hold
        pass
    raise InvalidCheckpoint(f"the times of the series' end are not on a {frequency} grid")
