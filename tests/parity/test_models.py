"""Forecasters against the published programs': same parameters, same outputs, same gradients."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.testing import assert_close

from pals_core.models.registry import build_forecaster
from pals_core.spec import Spec

Config = Mapping[str, Any]

# Patterns of published parameter names and what stands for them here; the first that matches counts.
_STACKS = (
    (r"(enc|dec)_embedding\.value_embedding\.tokenConv\.", r"\1oder_embedding.value."),
    (r"(enc|dec)_embedding\.temporal_embedding\.embed\.", r"\1oder_embedding.calendar."),
    (r"encoder\.attn_layers\.(\d+)\.norm1\.", r"encoder.layers.\1.attention_norm."),
    (r"encoder\.attn_layers\.(\d+)\.norm2\.", r"encoder.layers.\1.feed_forward_norm."),
    (r"decoder\.layers\.(\d+)\.norm1\.", r"decoder.layers.\1.self_attention_norm."),
    (r"decoder\.layers\.(\d+)\.norm2\.", r"decoder.layers.\1.cross_attention_norm."),
    (r"decoder\.layers\.(\d+)\.norm3\.", r"decoder.layers.\1.feed_forward_norm."),
    (r"encoder\.attn_layers\.(\d+)\.conv1\.", r"encoder.layers.\1.feed_forward.expand."),
    (r"encoder\.attn_layers\.(\d+)\.conv2\.", r"encoder.layers.\1.feed_forward.contract."),
    (r"decoder\.layers\.(\d+)\.conv1\.", r"decoder.layers.\1.feed_forward.expand."),
    (r"decoder\.layers\.(\d+)\.conv2\.", r"decoder.layers.\1.feed_forward.contract."),
    (r"encoder\.attn_layers\.(\d+)\.attention\.(query|key|value)_projection\.", r"encoder.layers.\1.attention.\2."),
    (r"encoder\.attn_layers\.(\d+)\.attention\.out_projection\.", r"encoder.layers.\1.attention.output."),
    (r"decoder\.layers\.(\d+)\.(\w+)_attention\.(query|key|value)_projection\.", r"decoder.layers.\1.\2_attention.\3."),
    (r"decoder\.layers\.(\d+)\.(\w+)_attention\.out_projection\.", r"decoder.layers.\1.\2_attention.output."),
    (r"(encoder|decoder)\.norm\.", r"\1.norm."),
    (r"decoder\.projection\.", r"projection."),
    (r"(tau|delta)_learner\.series_conv\.", r"\1_projector.convolution."),
)
_INFORMER = (
    (r"encoder\.conv_layers\.(\d+)\.downConv\.", r"encoder.distilling.\1.convolution."),
    (r"encoder\.conv_layers\.(\d+)\.norm\.", r"encoder.distilling.\1.norm."),
)
_SEASONAL = (
    (r"(encoder|decoder)\.norm\.layernorm\.", r"\1.norm.norm."),
    (r"decoder\.layers\.(\d+)\.projection\.", r"decoder.layers.\1.trend."),
)
# One block serves all layers; the published program lists it under the first.
_FEDFORMER = (
    (r"encoder\.attn_layers\.0\.attention\.inner_correlation\.weights1", r"encoder.layers.0.attention.block.weight"),
    (
        r"decoder\.layers\.0\.(\w+)_attention\.inner_correlation\.weights1",
        r"decoder.layers.0.\1_attention.block.weight",
    ),
)
_PATCHTST = (
    (r"encoder\.norm\.1\.", r"norm."),
    *((published, ours.removeprefix("encoder.")) for published, ours in _STACKS),
    (r"patch_embedding\.value_embedding\.", r"patch_embedding."),
    (r"head\.linear\.", r"head."),
)
_ITRANSFORMER = (
    (r"enc_embedding\.value_embedding\.", r"embedding."),
    (r"projection\.", r"projection."),
    *_STACKS,
)
_DLINEAR = ((r"Linear_Seasonal\.", "remainder."), (r"Linear_Trend\.", "trend."))


def _encoder_sizes(config: Config) -> dict[str, Any]:
    return {
        "d_model": config["d_model"],
        "d_ff": config["d_ff"],
        "heads": config["n_heads"],
        "encoder_layers": config["e_layers"],
        "dropout": config["dropout"],
    }


def _sizes(config: Config) -> dict[str, Any]:
    return {"decoder_layers": config["d_layers"], **_encoder_sizes(config)}


class Published(NamedTuple):
    """How a published model is called and built here.

    `cancelling` names the parameters whose gradient is a difference of terms far larger than itself: the reference,
    computed in single precision, is itself off by hundredths of it.
    """

    spec: Callable[[Config], dict[str, Any]]
    renames: Callable[[Config], tuple[tuple[str, str], ...]]
    cancelling: Callable[[Config], tuple[str, ...]] = lambda _: ()


def _projectors(config: Config) -> tuple[tuple[str, str], ...]:
    """The backbone's ReLUs take every other place; its last layer is the output."""
    hidden = len(config["p_hidden_dims"])
    ours = [*(f"hidden.{layer}" for layer in range(hidden)), "output"]
    backbone = (
        (rf"(tau|delta)_learner\.backbone\.{2 * place}\.", rf"\1_projector.{name}.") for place, name in enumerate(ours)
    )
    return (*_STACKS, *backbone)


MODELS: dict[str, Published] = {
    "Transformer": Published(lambda config: {"name": "transformer", **_sizes(config)}, lambda _: _STACKS),
    "NSTransformer": Published(
        lambda config: {"name": "nstransformer", "projector_hidden": config["p_hidden_dims"], **_sizes(config)},
        _projectors,
    ),
    "Informer": Published(
        lambda config: {
            "name": "informer",
            "factor": config["factor"],
            "distil": config["distil"],
            "published_axis_order": True,
            **_sizes(config),
        },
        lambda _: (*_INFORMER, *_STACKS),
    ),
    "Autoformer": Published(
        lambda config: {
            "name": "autoformer",
            "factor": config["factor"],
            "moving_avg": config["moving_avg"],
            **_sizes(config),
        },
        lambda _: (*_SEASONAL, *_STACKS),
    ),
    "FEDformer": Published(
        lambda config: {
            "name": "fedformer",
            "modes": config["modes"],
            "mode_select": "lowest" if config["mode_select"] == "low" else "random",
            "moving_avg": config["moving_avg"],
            "published_axis_order": True,
            **_sizes(config),
        },
        lambda _: (*_FEDFORMER, *_SEASONAL, *_STACKS),
    ),
    "PatchTST": Published(
        lambda config: {
            "name": "patchtst",
            **{name: config[name] for name in ("patch_len", "stride") if name in config},
            **_encoder_sizes(config),
        },
        lambda _: _PATCHTST,
        # The BatchNorm behind it undoes this scale but for its epsilon.
        lambda config: (f"layers.{config['e_layers'] - 1}.feed_forward_norm.weight",),
    ),
    "iTransformer": Published(
        lambda config: {"name": "itransformer", **_encoder_sizes(config)}, lambda _: _ITRANSFORMER
    ),
    "DLinear": Published(
        lambda config: {
            "name": "dlinear",
            "moving_avg": config["moving_avg"],
            "per_column": bool(config.get("individual", False)),
        },
        lambda _: _DLINEAR,
    ),
}


def name_of(path: Path) -> str:
    """The model of a reference file, of which there may be several: `Transformer`, `Transformer_deep`."""
    return path.stem.partition("_")[0]


class Golden:
    """One reference file, its parameters and gradients under our names and in our shapes."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        self.config: Config = json.loads(header["config"])
        self.without_gradient: list[str] = json.loads(header["parameters_without_gradient"])
        self.loss = float(header["loss_train"])
        self.published = MODELS[name_of(path)]
        self.inputs = [self.tensors[name] for name in ("x_enc", "x_mark_enc", "x_dec", "x_mark_dec")]

    def build(self) -> nn.Module:
        """The forecaster with the published parameters."""
        config = self.config
        spec = Spec.model_validate(
            {
                "data": {
                    "input_len": config["seq_len"],
                    "label_len": config["label_len"],
                    "horizon": config["pred_len"],
                },
                "model": self.published.spec(config),
            }
        )
        model = build_forecaster(spec, config["enc_in"], self.inputs[1].shape[2])
        # Buffers are no published parameters, and the state lists a shared block once per layer.
        published = self.named("param.", model)
        assert set(published) == {name for name, _ in model.named_parameters()}
        model.load_state_dict(published, strict=False)
        return model

    def named(self, prefix: str, model: nn.Module) -> dict[str, Tensor]:
        """The tensors under `prefix` by our names.

        1×1 convolutions as linear layers, pairs of real numbers as complex ones, per-column layers stacked.
        """
        tensors_here = model.state_dict()
        renamed: dict[str, Tensor] = {}
        columns: dict[str, dict[int, Tensor]] = {}
        for key, tensor in self.tensors.items():
            published = key.removeprefix(prefix)
            if published == key or published in self.without_gradient:
                continue
            ours = self._rename(published)
            if per_column := re.fullmatch(r"(\w+)\.(\d+)\.(weight|bias)", ours):
                columns.setdefault(f"{per_column[1]}.{per_column[3]}", {})[int(per_column[2])] = tensor
            elif tensors_here[ours].is_complex():
                renamed[ours] = torch.view_as_complex(tensor)
            else:
                renamed[ours] = tensor.squeeze(-1) if tensor.ndim == tensors_here[ours].ndim + 1 else tensor
        for name, tensors in columns.items():
            renamed[name] = torch.stack([tensors[column] for column in sorted(tensors)])
        return renamed

    def _rename(self, published: str) -> str:
        for pattern, ours in self.published.renames(self.config):
            if re.match(pattern, published):
                # "enc" and "dec" become "encoder" and "decoder" by the "oder" of the replacement.
                return re.sub(rf"^{pattern}", ours, published)
        raise AssertionError(f"no name for the published parameter {published}")


@pytest.fixture
def golden(model_file: Path) -> Golden:
    torch.set_num_threads(1)
    return Golden(model_file)


def test_every_reference_model_is_compared(reference_dir: Path) -> None:
    models = [
        path for path in reference_dir.glob("*.safetensors") if not path.stem.startswith(("mask_updates", "windows"))
    ]
    assert {name_of(path) for path in models} == set(MODELS)


def test_forecasts_are_the_published_ones(golden: Golden) -> None:
    model = golden.build().eval()
    with torch.no_grad():
        output = model(*golden.inputs)
    assert_close(output, golden.tensors["output_eval"], rtol=0, atol=1e-5)


def test_gradients_are_the_published_ones(golden: Golden) -> None:
    model = golden.build().train()
    output = model(*golden.inputs)
    assert_close(output, golden.tensors["output_train"], rtol=0, atol=1e-5)
    loss = nn.functional.mse_loss(output, golden.tensors["target"])
    assert abs(loss.item() - golden.loss) <= 1e-5
    loss.backward()

    buffers = dict(model.named_buffers())
    for name, buffer in golden.named("buffer_after_train_step.", model).items():
        assert_close(buffers[name], buffer, rtol=0, atol=1e-5)

    expected = golden.named("grad.", model)
    cancelling = golden.published.cancelling(golden.config)
    parameters = dict(model.named_parameters())
    assert set(expected) == set(parameters)
    steepest = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in expected.items():
        actual = parameters[name].grad
        assert actual is not None, name
        error, largest = (actual - gradient).abs().max().item(), gradient.abs().max().item()
        assert error <= 1e-5, name
        if name in cancelling:
            assert error <= 1e-6 * steepest, name
        elif largest >= 1e-7:
            assert error <= 1e-4 * largest, name
