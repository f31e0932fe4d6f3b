"""A checkpoint as an ONNX file, checked against PyTorch before it is put in its place."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pals_core.checkpoint.file import read_checkpoint
from pals_core.checkpoint.header import CheckpointHeader
from pals_core.checkpoint.tensor_file import replacing
from pals_core.compaction.compact import compact
from pals_core.data.lengths import WindowLengths, window_lengths
from pals_core.errors import ExportFailed
from pals_core.export.interface import OriginalUnits, ScaledUnits, Units, network_inputs
from pals_core.export.real_fourier import make_real, matrix_bytes
from pals_core.torch_defaults import own_torch_defaults

if TYPE_CHECKING:
    from onnx import ModelProto

OUTPUT = "forecast"
OPSET = 18
TOLERANCE = 1e-4  # of forecasts in scaled units, or of the largest where that is above 1
# A protocol buffer holds 2 GiB, of which the graph without its weights needs a little.
MAX_BYTES = 2**31 - 2**26
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_CHECKED_WINDOWS = 3


@dataclass(frozen=True)
class OnnxExport:
    """An ONNX file and how well it agrees with the network it was made from."""

    path: Path
    bytes: int
    inputs: tuple[str, ...]
    max_difference: float  # between forecasts of onnxruntime and PyTorch, in scaled units


@own_torch_defaults()
def export_onnx(
    checkpoint_path: str | Path,
    output_path: str | Path,
    *,
    units: Units | str = Units.ORIGINAL,
    compacted: bool = False,
) -> OnnxExport:
    """Write the forecaster of a checkpoint as an ONNX file of one output, `forecast`, [B, H, C], for batches of any B.

    In `original` units scaling and its inverse are part of the file, and its inputs are those the network reads; in
    `scaled` units they are always x_enc, x_mark_enc, x_dec and x_mark_dec. The file's metadata describe both. With
    `compacted`, neurons and heads that are empty are left out. Before the file takes its place, onnxruntime forecasts
    with it. Raises ExportFailed when a package is missing, the file would be larger than 2 GiB or its forecasts differ;
    InvalidCheckpoint, and FileNotFoundError without a checkpoint.
    """
    _require_packages()
    checkpoint = read_checkpoint(Path(checkpoint_path))
    header = checkpoint.header
    model = compact(checkpoint).model if compacted else checkpoint.build()
    _check_size(model, window_lengths(header.spec.data))
    graph = OriginalUnits(model, header) if Units(units) is Units.ORIGINAL else ScaledUnits(model)
    sample = graph.given(network_inputs(header, _CHECKED_WINDOWS, torch.Generator().manual_seed(0)))
    with torch.no_grad():
        expected = graph.scaled(graph(*sample))
    make_real(model, window_lengths(header.spec.data))
    proto = _converted(graph, sample)
    for key, value in _metadata(header, Units(units)).items():
        proto.metadata_props.add(key=key, value=value)

    path = Path(output_path)
    with replacing(path) as part:
        part.write_bytes(proto.SerializeToString(deterministic=True))
        difference = _difference(graph.scaled(_forecast(part, graph.inputs, sample)), expected)
    return OnnxExport(path, path.stat().st_size, graph.inputs, difference)


def _require_packages() -> None:
    if missing := [name for name in _PACKAGES if importlib.util.find_spec(name) is None]:
        raise ExportFailed(f"an ONNX file needs {', '.join(missing)}; install them with pip install 'pals[onnx]'")


def _check_size(model: nn.Module, lengths: WindowLengths) -> None:
    size = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    matrices = matrix_bytes(model, lengths)
    if size + matrices > MAX_BYTES:
        fourier = f", {matrices} of them for Fourier transforms as matrices" if matrices else ""
        raise ExportFailed(
            f"the network takes {size + matrices} bytes as ONNX{fourier}; a file holds {MAX_BYTES} of weights"
        )


def _converted(graph: OriginalUnits | ScaledUnits, sample: tuple[Tensor, ...]) -> ModelProto:
    """Return the graph as ONNX, free of whatever depends on the place it was made at."""
    batch = torch.export.Dim("batch")
    shapes = (tuple({0: batch} for _ in sample),)
    with _quiet(), torch.no_grad():
        program = torch.export.export(graph.eval(), sample, dynamic_shapes=shapes, strict=False)
        converted = torch.onnx.export(
            program,
            input_names=graph.inputs,
            output_names=[OUTPUT],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert converted is not None
    proto: ModelProto = converted.model_proto
    # Sizes in between and traces of the program that was exported, neither of which a runtime needs.
    del proto.graph.value_info[:]
    del proto.graph.metadata_props[:]
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
        del value.metadata_props[:]
    _name_weights(proto, dict(graph.model.named_parameters()))
    return proto


def _name_weights(proto: ModelProto, parameters: Mapping[str, Tensor]) -> None:
    """Call weights what the checkpoint calls them, those that the conversion has transposed `<name>.transposed`.

    A transposed one has what belongs to one output in a column, be it a matrix or the kernel of a convolution.
    """
    from onnx import numpy_helper

    labels: dict[tuple[tuple[int, ...], bytes], str] = {}
    for name, parameter in parameters.items():
        values = parameter.detach().numpy()
        labels[values.shape, values.tobytes()] = name
        if values.ndim > 1:
            transposed = parameter.detach().flatten(1).numpy().T
            labels.setdefault((transposed.shape, transposed.tobytes()), f"{name}.transposed")
    taken = {initializer.name for initializer in proto.graph.initializer}
    renamed = {}
    for initializer in proto.graph.initializer:
        values = numpy_helper.to_array(initializer)
        label = labels.get((values.shape, values.tobytes()))
        if initializer.name.startswith("model."):
            label = initializer.name.removeprefix("model.")
        if label is not None and label not in taken:
            taken.add(label)
            renamed[initializer.name] = initializer.name = label
    for node in proto.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what PyTorch's exporter says of its own code and of packages it does not find."""
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        log.setLevel(level)


def _metadata(header: CheckpointHeader, units: Units) -> dict[str, str]:
    """Return what a program needs to know to prepare the inputs, each a JSON value."""
    lengths = window_lengths(header.spec.data)
    facts = {
        "units": units,
        "columns": header.columns,
        "pooled": header.spec.data.pooled,
        "known_future": header.spec.data.known_future,
        "frequency": header.frequency,
        "resampled_from": header.resampled_from,
        "calendar_features": header.calendar_features,
        "input_len": lengths.input_len,
        "label_len": lengths.label_len,
        "horizon": lengths.horizon,
        "scaler_mean": header.scaler_mean,
        "scaler_std": header.scaler_std,
        "known_future_mean": header.known_future_mean,
        "known_future_std": header.known_future_std,
        "missing": header.spec.data.missing,
        "model": header.spec.model.name,
        "sparsity": header.sparsity,
        "dataset_sha256": header.dataset_sha256,
        "library_versions": header.library_versions,
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()}


def _forecast(path: Path, inputs: tuple[str, ...], sample: tuple[Tensor, ...]) -> Tensor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {name: value.numpy() for name, value in zip(inputs, sample, strict=True)}
    return torch.from_numpy(session.run([OUTPUT], feed)[0])


def _difference(forecast: Tensor, expected: Tensor) -> float:
    """Return the largest difference, scaled units; raises ExportFailed when it is too large."""
    difference = float((forecast - expected).abs().max())
    allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not difference <= allowed:
        raise ExportFailed(
            f"onnxruntime forecasts otherwise than PyTorch, by {difference:.2g} in scaled units where {allowed:.2g} is "
            "allowed; the file was not written"
        )
    return difference
