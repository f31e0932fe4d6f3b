"""Attention heads that add nothing, or the same at every step.

Shapes: h heads, d_k width of one, D width of the model; W the width of a layer's heads together, h · d_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pals_core.compaction.neurons import keep_inputs, keep_outputs, shift_bias
from pals_core.layers.attention import MultiHeadAttention
from pals_core.layers.frequency import FourierBlock, FourierCrossAttention, FourierSelfAttention
from pals_core.layers.prob_sparse import ProbSparseAttention

FourierAttention = FourierSelfAttention | FourierCrossAttention


class ConstantOutput(nn.Module):
    """What is left of an attention without heads: [B, Q, D] to the same D values at every step, or at the `last`."""

    queries_are_independent = True

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias.detach())

    def forward(self, queries: Tensor, *_: Tensor, last: int | None = None, **__: Any) -> Tensor:
        return self.bias.expand_as(queries if last is None else queries[:, -last:])


@torch.no_grad()
def remove_idle_heads(attention: MultiHeadAttention | ProbSparseAttention, *, causal: bool) -> int:
    """Take idle heads out of an attention, in place, and return how many there were.

    Idle is a head that nothing goes on from, its columns of the output projection being zero, or whose values are
    constant, its rows of the value projection being zero: weights that add up to 1 make no other of them, and what they
    add joins the output's bias. The running sum of constants that a causal ProbSparse attention gives to the queries it
    does not keep is not constant, so there the constants must be zero.
    """
    of, value, output = attention.heads, attention.value, attention.output
    if isinstance(attention, ProbSparseAttention) and attention.published_axis_order:
        return 0  # its output mixes heads and steps
    constant = _by_head(value.weight == 0, of, axis=0)
    if causal and isinstance(attention, ProbSparseAttention):
        constant &= _by_head(value.bias == 0, of, axis=0)
    unheard = _by_head(output.weight == 0, of, axis=1)
    idle = constant | unheard
    of_constant = _over_width(constant, output.in_features)
    shift_bias(output, output.weight[:, of_constant], value.bias[of_constant])
    kept = _over_width(~idle, output.in_features)
    for projection in (attention.query, attention.key, value):
        keep_outputs(projection, kept)
    keep_inputs(output, kept)
    attention.heads = int((~idle).sum())
    return of - attention.heads


@torch.no_grad()
def remove_idle_fourier_heads(attentions: Sequence[FourierAttention]) -> int:
    """Take heads that are idle in all `attentions`, which share one block, out of them, in place; return how many.

    Idle is a head that nothing goes on from, its columns of the output projection being zero, or whose matrices are
    zero, or, in self-attention, whose queries are constant, their rows being zero: of their spectrum the mean alone is
    left, which the block maps to a constant that joins the output's bias.
    """
    block = attentions[0].block
    layout, of = block.layout, block.layout.heads
    if layout.published_axis_order:
        return 0  # its output mixes heads and steps
    idle = torch.ones(of, dtype=torch.bool)
    constants = []
    for attention in attentions:
        unheard = _by_head(attention.output.weight == 0, of, axis=1) | (block.weight == 0).flatten(1).all(dim=1)
        constant = torch.zeros_like(unheard)
        if isinstance(attention, FourierSelfAttention):
            constant = _by_head(attention.query.weight == 0, of, axis=0)
        idle &= unheard | constant
        constants.append(constant)
    for attention, constant in zip(attentions, constants, strict=True):
        output = attention.output
        if isinstance(attention, FourierSelfAttention):
            folded = _over_width(constant & idle, output.in_features)
            shift_bias(output, output.weight[:, folded], _of_means(attention.query.bias, attention.block)[folded])
        kept = _over_width(~idle, output.in_features)
        keep_outputs(attention.query, kept)
        if isinstance(attention, FourierCrossAttention):
            keep_outputs(attention.key, kept)
        keep_inputs(output, kept)
    block.weight = nn.Parameter(block.weight[~idle])
    block.layout = replace(layout, heads=int((~idle).sum()))
    return of - block.layout.heads


def _of_means(queries: Tensor, block: FourierBlock) -> Tensor:
    """Return what a block makes of queries that are `queries`, [W], at every step: the same, [W], at every step."""
    at_zero = block.weight[..., block.frequencies == 0].real.sum(dim=-1)  # [h, d_k, d_k], zero where it is not kept
    return torch.einsum("hi,hio->ho", queries.view(block.layout.heads, -1).double(), at_zero.double()).flatten()


def _by_head(zero: Tensor, heads: int, axis: int) -> Tensor:
    """Return for which heads all along `axis` is True, [h]."""
    return zero.movedim(axis, 0).reshape(heads, -1).all(dim=1)


def _over_width(of_heads: Tensor, width: int) -> Tensor:
    """Return a choice of heads, [h], as one of their channels, [W]."""
    return of_heads.repeat_interleave(width // len(of_heads))
