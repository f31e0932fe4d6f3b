"""Layers of attention and feed-forward that compute wholly in bfloat16.

Between the products of such a layer lie sums, norms and softmax, and a conversion before and after each product; all of
them move half the bytes in bfloat16, and the conversions are gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pals_core.layers.attention import Destationarisation, MultiHeadAttention
from pals_core.layers.stacks import DecoderLayer, EncoderLayer


def blocks_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the encoder and decoder layers, by name, whose attentions are all plain ones.

    Others take Fourier transforms, which bfloat16 has not, or choose queries by their scores, which rounding changes.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, EncoderLayer | DecoderLayer) and all(map(_is_plain, _attentions(module)))
    }


class InBFloat16:
    """Makes blocks take and work on bfloat16, whatever they are given; what they return is in single precision again.

    Their linear layers have to be ones that return the type they are given.
    """

    def __init__(self, blocks: Mapping[str, nn.Module]) -> None:
        self._blocks = blocks
        self._hooks: list[RemovableHandle] = []

    def start(self) -> None:
        for block in self._blocks.values():
            self._hooks.append(block.register_forward_pre_hook(_round_inputs, with_kwargs=True))
            self._hooks.append(block.register_forward_hook(_widen_output))

    def stop(self) -> None:
        while self._hooks:
            self._hooks.pop().remove()


def _attentions(block: EncoderLayer | DecoderLayer) -> list[nn.Module]:
    if isinstance(block, EncoderLayer):
        return [block.attention]
    return [block.self_attention, block.cross_attention]


def _is_plain(attention: nn.Module) -> bool:
    return type(attention) is MultiHeadAttention


def _round_inputs(
    _: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(map(_rounded, inputs)), {name: _rounded(value) for name, value in named.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.bfloat16()
    if isinstance(value, Destationarisation):
        delta = None if value.delta is None else value.delta.bfloat16()
        return replace(value, tau=value.tau.bfloat16(), delta=delta)
    return value


def _widen_output(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.to(torch.float32)
