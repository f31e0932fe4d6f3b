"""Compacted networks forecast as before; what they report is what the masks emptied."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pals_core.checkpoint.file import Checkpoint, read_checkpoint
from pals_core.compaction.compact import Compacted, Part, compact
from pals_core.compaction.heads import ConstantOutput
from pals_core.data.lengths import window_lengths
from pals_core.data.table import Table
from pals_core.forecast.forecaster import Forecaster
from tests.core.training.small_training import MODEL_NAMES

WITHOUT_HEADS = ("autoformer", "dlinear", "nlinear")
HEADS = 2
D = 16

CheckpointOf = Callable[..., Path]


def inputs(checkpoint: Checkpoint, batch: int = 5) -> list[Tensor]:
    lengths, header = window_lengths(checkpoint.header.spec.data), checkpoint.header
    generator = torch.Generator().manual_seed(7)
    sizes = [
        (steps, width)
        for steps in (lengths.input_len, lengths.decoder_len)
        for width in (len(header.columns), header.features)
    ]
    return [torch.randn(batch, *size, generator=generator) for size in sizes]


@torch.no_grad()
def assert_same_forecasts(checkpoint: Checkpoint, compacted: Compacted) -> None:
    sample = inputs(checkpoint)
    expected, found = checkpoint.build()(*sample), compacted.model(*sample)
    assert float((expected - found).abs().max()) <= 1e-6 * max(1.0, float(expected.abs().max()))


def emptied(checkpoint: Checkpoint, masks: Mapping[str, Tensor]) -> Checkpoint:
    """The checkpoint with weights switched off where `masks`, by part of a parameter's name, are False."""
    weights, off = dict(checkpoint.weights), dict(checkpoint.masks)
    for name in checkpoint.masks:
        for part, mask in masks.items():
            if part in name:
                off[name] = off[name] & mask.expand_as(off[name])
                weights[name] = weights[name] * off[name]
    return replace(checkpoint, weights=weights, masks=off)


def shuffled(checkpoint: Checkpoint, seed: int) -> Checkpoint:
    """The checkpoint with weights and biases large enough to matter everywhere, and every weight on."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(weight.shape, generator=generator, dtype=weight.dtype) / math.sqrt(weight.shape[-1])
        if weight.is_floating_point() or weight.is_complex()
        else weight
        for name, weight in checkpoint.weights.items()
        if "running_var" not in name
    }
    masks = {name: torch.ones_like(mask) for name, mask in checkpoint.masks.items()}
    return replace(checkpoint, weights={**checkpoint.weights, **weights}, masks=masks)


def rows(count: int, *off: int) -> Tensor:
    mask = torch.ones(count, 1, dtype=torch.bool)
    mask[list(off)] = False
    return mask


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_what_is_removed_is_what_the_masks_of_a_training_emptied(name: str, checkpoint_of: CheckpointOf) -> None:
    """Counted by hand from the masks; of masks without structure that is little or nothing."""
    checkpoint = read_checkpoint(checkpoint_of(name))
    compacted = compact(checkpoint)

    expected = 0
    for key, mask in checkpoint.masks.items():
        if key.endswith("feed_forward.expand.weight"):
            contract = checkpoint.masks[key.replace("expand", "contract")]
            expected += int((~mask.any(dim=1) | ~contract.any(dim=0)).sum())
    found = sum(layer.removed for layer in compacted.report.layers if layer.module.endswith("feed_forward"))
    assert found == expected
    assert compacted.report.removed(Part.HEADS) == 0  # a head of 8 × 16 weights is never empty by chance
    assert (compacted.report.of(Part.HEADS) == 0) == (name in WITHOUT_HEADS)
    assert_same_forecasts(checkpoint, compacted)


@pytest.mark.parametrize("name", [name for name in MODEL_NAMES if name not in ("dlinear", "nlinear")])
def test_idle_neurons_go_and_their_constants_stay(name: str, checkpoint_of: CheckpointOf) -> None:
    whole = shuffled(read_checkpoint(checkpoint_of(name)), seed=1)
    checkpoint = emptied(
        whole, {"feed_forward.expand.weight": rows(32, 0, 3, 4), "feed_forward.contract.weight": rows(32, 4, 31).T}
    )
    compacted = compact(checkpoint)
    of_pairs = [layer for layer in compacted.report.layers if layer.module.endswith("feed_forward")]
    assert of_pairs
    assert {(layer.removed, layer.of) for layer in of_pairs} == {(4, 32)}
    assert compacted.report.parameters_after == compacted.report.parameters_before - len(of_pairs) * 4 * (
        2 * D + (name not in ("autoformer", "fedformer"))
    )
    assert compacted.report.flops_after < compacted.report.flops_before
    assert_same_forecasts(checkpoint, compacted)
    assert compact(whole).report.removed(Part.NEURONS) == 0


@pytest.mark.parametrize("name", [name for name in MODEL_NAMES if name not in WITHOUT_HEADS])
@pytest.mark.parametrize("side", ["in", "out", "both"])
def test_an_idle_head_goes_from_every_attention(name: str, side: str, checkpoint_of: CheckpointOf) -> None:
    head = rows(D, *range(8, 16))
    inwards = {"attention.query.weight": head} if name == "fedformer" else {"attention.value.weight": head}
    outwards = {"attention.output.weight": head.T}
    checkpoint = shuffled(read_checkpoint(checkpoint_of(name)), seed=2)
    checkpoint = emptied(checkpoint, {"in": inwards, "out": outwards, "both": inwards | outwards}[side])
    compacted = compact(checkpoint)
    removed = {layer.module: layer.removed for layer in compacted.report.layers if layer.part is Part.HEADS}
    kept = {key for key, count in removed.items() if count == 0}
    # What is constant per key is not constant per query there: see `remove_idle_heads`.
    exceptions = {"informer": "decoder.layers.0.self_attention", "fedformer": "decoder.layers.0.cross_attention"}
    assert kept == ({exceptions[name]} if side == "in" and name in exceptions else set())
    assert set(removed.values()) - {0} == {1}
    assert compacted.report.flops_after < compacted.report.flops_before
    assert_same_forecasts(checkpoint, compacted)


@pytest.mark.parametrize("name", [name for name in MODEL_NAMES if name not in WITHOUT_HEADS])
def test_an_attention_without_a_head_left_is_its_bias(name: str, checkpoint_of: CheckpointOf) -> None:
    checkpoint = shuffled(read_checkpoint(checkpoint_of(name)), seed=3)
    checkpoint = emptied(
        checkpoint,
        {
            "attention.output.weight": torch.zeros(1, 1, dtype=torch.bool),
            "feed_forward.contract.weight": torch.zeros(1, 1, dtype=torch.bool),
        },
    )
    compacted = compact(checkpoint)
    assert compacted.report.removed(Part.HEADS) == compacted.report.of(Part.HEADS) > 0
    assert sum(isinstance(module, ConstantOutput) for module in compacted.model.modules()) == len(
        [layer for layer in compacted.report.layers if layer.part is Part.HEADS]
    )
    assert_same_forecasts(checkpoint, compacted)


def test_an_informers_running_sums_of_zero_are_removed(checkpoint_of: CheckpointOf) -> None:
    checkpoint = emptied(
        shuffled(read_checkpoint(checkpoint_of("informer")), seed=4),
        {"self_attention.value.weight": rows(D, *range(8))},
    )
    place = "decoder.layers.0.self_attention"
    bias = checkpoint.weights[f"{place}.value.bias"].clone()
    bias[:8] = 0
    checkpoint = replace(checkpoint, weights={**checkpoint.weights, f"{place}.value.bias": bias})
    compacted = compact(checkpoint)
    assert {layer.module: layer.removed for layer in compacted.report.layers}[place] == 1
    assert_same_forecasts(checkpoint, compacted)


@pytest.mark.parametrize("name", ["informer", "fedformer"])
def test_heads_stay_where_the_published_axis_order_mixes_them(name: str, checkpoint_of: CheckpointOf) -> None:
    checkpoint = shuffled(read_checkpoint(checkpoint_of(name, published_axis_order=True)), seed=5)
    checkpoint = emptied(checkpoint, {"attention.output.weight": rows(D, *range(8)).T})
    compacted = compact(checkpoint)
    assert compacted.report.removed(Part.HEADS) == 0
    assert_same_forecasts(checkpoint, compacted)


def test_a_shared_fourier_block_loses_only_heads_that_all_its_layers_can_spare(checkpoint_of: CheckpointOf) -> None:
    whole = shuffled(read_checkpoint(checkpoint_of("fedformer")), seed=6)
    one = emptied(whole, {"encoder.layers.0.attention.output.weight": rows(D, *range(8)).T})
    assert compact(one).report.removed(Part.HEADS) == 0
    both = emptied(one, {"encoder.layers.1.attention.query.weight": rows(D, *range(8))})
    compacted = compact(both)
    assert compacted.report.removed(Part.HEADS) == 2
    first, second = (layer.attention for layer in compacted.model.encoder.layers)  # type: ignore[union-attr]
    assert first.block is second.block
    assert_same_forecasts(both, compacted)
    empty = emptied(whole, {"encoder.layers.0.attention.block.weight": rows(HEADS, 1).view(HEADS, 1, 1, 1)})
    assert compact(empty).report.removed(Part.HEADS) == 2
    assert_same_forecasts(empty, compact(empty))


def test_idle_neurons_of_the_projectors_go_unless_a_constant_has_no_bias_to_join(checkpoint_of: CheckpointOf) -> None:
    checkpoint = shuffled(read_checkpoint(checkpoint_of("nstransformer")), seed=8)
    checkpoint = emptied(
        checkpoint, {"tau_projector.hidden.0.weight": rows(32, 1, 2), "tau_projector.hidden.1.weight": rows(32, 5)}
    )
    bias = {f"tau_projector.hidden.{layer}.bias": torch.full((32,), 0.5) for layer in (0, 1)}
    positive = replace(checkpoint, weights={**checkpoint.weights, **bias})
    negative = replace(positive, weights={**positive.weights, "tau_projector.hidden.1.bias": torch.full((32,), -0.5)})
    for one, removed in ((positive, 2), (negative, 3)):
        compacted = compact(one)
        found = {layer.module: (layer.removed, layer.of) for layer in compacted.report.layers}
        assert found["tau_projector"] == (removed, 64)
        assert_same_forecasts(one, compacted)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from([name for name in MODEL_NAMES if name not in ("dlinear", "nlinear")]),
    seed=st.integers(0, 2**16),
    share=st.sampled_from([0.0, 0.2, 0.6, 0.95]),
)
def test_whatever_rows_columns_and_heads_are_empty_forecasts_are_the_same(
    name: str, seed: int, share: float, checkpoint_of: CheckpointOf
) -> None:
    checkpoint = shuffled(read_checkpoint(checkpoint_of(name)), seed)
    generator = torch.Generator().manual_seed(seed)

    def structured(mask: Tensor) -> Tensor:
        drawn = torch.rand(mask.shape, generator=generator) > 0.3
        for axis in range(mask.ndim):
            of_heads = bool(torch.rand(1, generator=generator) < 0.5) and mask.shape[axis] == D
            count = HEADS if of_heads else mask.shape[axis]
            kept = (torch.rand(count, generator=generator) >= share).repeat_interleave(mask.shape[axis] // count)
            drawn &= kept.view([-1 if place == axis else 1 for place in range(mask.ndim)])
        return drawn

    parts = ["feed_forward", "attention", "projector"]
    if name == "informer":
        # Without queries or keys all steps are equally selective, and the rounding of a sum decides which are kept.
        parts[1:2] = ["attention.value", "attention.output"]
    masks = {key: structured(mask) for key, mask in checkpoint.masks.items() if any(part in key for part in parts)}
    checkpoint = emptied(checkpoint, masks)
    compacted = compact(checkpoint)
    assert_same_forecasts(checkpoint, compacted)
    assert compacted.report.flops_after <= compacted.report.flops_before
    if share == 0:
        assert compacted.report.removed(Part.HEADS) == 0


def test_a_compacted_network_forecasts_in_the_checkpoints_place(checkpoint_of: CheckpointOf, series: Table) -> None:
    checkpoint = emptied(
        read_checkpoint(checkpoint_of("transformer")), {"feed_forward.expand.weight": rows(32, *range(20))}
    )
    compacted = compact(checkpoint)
    assert not compacted.model.training
    assert compacted.report.removed(Part.NEURONS) >= 60
    before, after = Forecaster(checkpoint).forecast(series), Forecaster(checkpoint, compacted.model).forecast(series)
    scale = np.array(checkpoint.header.scaler_std)
    assert np.abs((before.values - after.values) / scale).max() <= 1e-6


def test_the_residual_stream_keeps_its_width(checkpoint_of: CheckpointOf) -> None:
    checkpoint = emptied(
        shuffled(read_checkpoint(checkpoint_of("itransformer")), seed=9),
        {"attention.output.weight": rows(D, *range(8)).T},
    )
    model = compact(checkpoint).model
    norms = [module.normalized_shape for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert norms
    assert set(norms) == {(D,)}
