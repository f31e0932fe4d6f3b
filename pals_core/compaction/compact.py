"""The network of a checkpoint without the neurons and heads that its masks have emptied; it forecasts the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from pals_core.checkpoint.file import Checkpoint
from pals_core.compaction.heads import (
    ConstantOutput,
    FourierAttention,
    remove_idle_fourier_heads,
    remove_idle_heads,
)
from pals_core.compaction.neurons import remove_idle_neurons
from pals_core.data.lengths import window_lengths
from pals_core.flops import count_flops
from pals_core.layers.attention import MultiHeadAttention
from pals_core.layers.feed_forward import FeedForward
from pals_core.layers.frequency import FourierCrossAttention, FourierSelfAttention
from pals_core.layers.prob_sparse import ProbSparseAttention
from pals_core.layers.projector import Projector
from pals_core.layers.stacks import DecoderLayer
from pals_core.torch_defaults import own_torch_defaults


class Part(StrEnum):
    """What is removed as a whole."""

    NEURONS = "neurons"
    HEADS = "heads"


@dataclass(frozen=True)
class CompactedLayer:
    """How many neurons or heads a layer had, and how many of them were removed."""

    module: str
    part: Part
    removed: int
    of: int


@dataclass(frozen=True)
class CompactionReport:
    """What was removed, and what one forecast costs when every weight that is left is computed with."""

    layers: tuple[CompactedLayer, ...]  # all that have neurons or heads, removed or not
    flops_before: int
    flops_after: int
    parameters_before: int
    parameters_after: int

    def removed(self, part: Part) -> int:
        return sum(layer.removed for layer in self.layers if layer.part is part)

    def of(self, part: Part) -> int:
        return sum(layer.of for layer in self.layers if layer.part is part)


@dataclass(frozen=True)
class Compacted:
    """A network in evaluation mode that forecasts as the checkpoint's, and what was taken out of it."""

    model: nn.Module
    report: CompactionReport


@own_torch_defaults()
def compact(checkpoint: Checkpoint) -> Compacted:
    """Build a checkpoint's network without idle neurons and heads; the residual stream keeps its width.

    Removed are neurons and heads whose weights in or out are all zero, what they add being constant and moved into the
    next bias. Forecasts change by rounding alone, at most 1e-6 in scaled units. Masks without structure rarely empty a
    neuron, so often nothing is removed, which the report then says.

    Autoformer's correlation is one over all channels and has no heads; with `published_axis_order` heads cannot be told
    apart in the output, and stay. Where queries that Informer ranks, or delays that Autoformer does, are equal but for
    rounding, rounding decides which are kept, before as after.
    """
    model = checkpoint.build()
    parameters = _parameters(model)
    layers = (*_remove_neurons(model), *_remove_heads(model), *_remove_fourier_heads(model))
    return Compacted(
        model,
        CompactionReport(
            layers=layers,
            flops_before=checkpoint.header.flops_dense,
            flops_after=_flops(model, checkpoint),
            parameters_before=parameters,
            parameters_after=_parameters(model),
        ),
    )


def _remove_neurons(model: nn.Module) -> Iterator[CompactedLayer]:
    for name, module in model.named_modules():
        if isinstance(module, FeedForward):
            width = module.expand.out_features
            removed = remove_idle_neurons(module.expand, module.contract, F.gelu)
            yield CompactedLayer(name, Part.NEURONS, removed, width)
        elif isinstance(module, Projector):
            layers: list[nn.Linear] = [*module.hidden, module.output]
            width = sum(layer.out_features for layer in layers[:-1])
            removed = sum(remove_idle_neurons(before, after, torch.relu) for before, after in pairwise(layers))
            yield CompactedLayer(name, Part.NEURONS, removed, width)


def _remove_heads(model: nn.Module) -> Iterator[CompactedLayer]:
    for parent_name, parent in list(model.named_modules()):
        for name, attention in list(parent.named_children()):
            if not isinstance(attention, MultiHeadAttention | ProbSparseAttention):
                continue
            of = attention.heads
            causal = isinstance(parent, DecoderLayer) and name == "self_attention"
            removed = remove_idle_heads(attention, causal=causal)
            if removed == of:
                setattr(parent, name, ConstantOutput(attention.output.bias))
            yield CompactedLayer(f"{parent_name}.{name}", Part.HEADS, removed, of)


def _remove_fourier_heads(model: nn.Module) -> Iterator[CompactedLayer]:
    sharing: dict[nn.Module, list[tuple[nn.Module, str, str, FourierAttention]]] = {}
    for parent_name, parent in model.named_modules():
        for name, attention in parent.named_children():
            if isinstance(attention, FourierSelfAttention | FourierCrossAttention):
                sharing.setdefault(attention.block, []).append((parent, parent_name, name, attention))
    for uses in sharing.values():
        of = uses[0][3].block.layout.heads
        removed = remove_idle_fourier_heads([attention for *_, attention in uses])
        for parent, parent_name, name, attention in uses:
            if removed == of:
                setattr(parent, name, ConstantOutput(attention.output.bias))
            yield CompactedLayer(f"{parent_name}.{name}", Part.HEADS, removed, of)


def _flops(model: nn.Module, checkpoint: Checkpoint) -> int:
    lengths, header = window_lengths(checkpoint.header.spec.data), checkpoint.header
    columns, features = len(header.groups[0]), header.features
    count = count_flops(
        model,
        [
            torch.empty(1, steps, width)
            for steps in (lengths.input_len, lengths.decoder_len)
            for width in (columns, features)
        ],
    )
    return sum(count.of_weights.values()) + sum(product.flops for product in count.products)


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
