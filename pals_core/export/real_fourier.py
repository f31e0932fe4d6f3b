"""Autoformer's and FEDformer's attentions without complex numbers: Fourier transforms as products with real matrices.

They compute what `pals_core.layers` computes in evaluation, up to rounding, from operations that other runtimes have.

Shapes: B batch, L query steps, S key steps, D width, h heads, d_k = D / h, M kept frequencies (N of the keys).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pals_core.data.lengths import WindowLengths
from pals_core.layers.autocorrelation import AutoCorrelation
from pals_core.layers.frequency import (
    FourierBlock,
    FourierCrossAttention,
    FourierCrossBlock,
    FourierSelfAttention,
)
from pals_core.models.seasonal_transformer import SeasonalTransformer


def make_real(model: nn.Module, lengths: WindowLengths) -> None:
    """Replace the Fourier transforms inside of `model` by products with real matrices; it is then for evaluation only.

    Layers that shared a block share its replacement. A model without Fourier transforms stays as it is.
    """
    if not isinstance(model, SeasonalTransformer):
        return
    matrices: dict[tuple[int, int], CorrelationMatrices] = {}
    blocks: dict[nn.Module, nn.Module] = {}

    def real(attention: nn.Module, query_len: int, key_len: int) -> nn.Module:
        if isinstance(attention, AutoCorrelation):
            if (query_len, key_len) not in matrices:
                matrices[query_len, key_len] = CorrelationMatrices(query_len, key_len)
            return RealAutoCorrelation(attention, matrices[query_len, key_len])
        if isinstance(attention, FourierSelfAttention | FourierCrossAttention):
            block = attention.block
            if block not in blocks:
                blocks[block] = (
                    RealFourierCrossBlock(block, query_len, key_len)
                    if isinstance(block, FourierCrossBlock)
                    else RealFourierBlock(block, query_len)
                )
            attention.block = blocks[block]  # type: ignore[assignment]
        return attention

    for layer, name, query_len, key_len in _attentions(model, lengths):
        setattr(layer, name, real(layer.get_submodule(name), query_len, key_len))


def matrix_bytes(model: nn.Module, lengths: WindowLengths) -> int:
    """Return how large the matrices of `make_real` become that grow with the square of a window's length."""
    if not isinstance(model, SeasonalTransformer):
        return 0
    sizes = {
        (query_len, key_len)
        for layer, name, query_len, key_len in _attentions(model, lengths)
        if isinstance(layer.get_submodule(name), AutoCorrelation)
    }
    return sum(4 * query_len * (3 * query_len + key_len) for query_len, key_len in sizes)


def _attentions(model: SeasonalTransformer, lengths: WindowLengths) -> Iterator[tuple[nn.Module, str, int, int]]:
    """Give the layer and name of each attention, with how many steps its queries and keys have."""
    for layer in model.encoder.layers:
        yield layer, "attention", lengths.input_len, lengths.input_len
    for layer in model.decoder.layers:
        yield layer, "self_attention", lengths.decoder_len, lengths.decoder_len
        yield layer, "cross_attention", lengths.decoder_len, lengths.input_len


class CorrelationMatrices(nn.Module):
    """What auto-correlations of the same lengths have in common."""

    delays: Tensor  # [L·S']

    def __init__(self, query_len: int, key_len: int) -> None:
        super().__init__()
        self.steps = min(query_len, key_len)  # S': longer keys are cut, shorter ones padded with zeros
        frequencies = np.arange(query_len // 2 + 1)
        self.of_queries = Transform(frequencies, query_len, query_len)
        self.of_keys = Transform(frequencies, self.steps, query_len)
        self.back = InverseTransform(frequencies, query_len)
        # The delay by which key step s reaches query step t: the sum of V(t + d) takes s = t + d, cyclically.
        delays = (np.arange(self.steps) - np.arange(query_len)[:, None]) % query_len
        self.register_buffer("delays", torch.tensor(delays.reshape(-1), dtype=torch.int32), persistent=False)


class RealAutoCorrelation(nn.Module):
    """`AutoCorrelation` in evaluation: [B, L, D] queries and [B, S, D] keys to [B, L, D]."""

    def __init__(self, layer: AutoCorrelation, matrices: CorrelationMatrices) -> None:
        super().__init__()
        self.layer = layer
        self.matrices = matrices

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        layer, matrices, length = self.layer, self.matrices, queries.shape[1]
        keys = keys[:, : matrices.steps]
        query, query_imaginary = matrices.of_queries(layer.query(queries).transpose(1, 2))
        key, key_imaginary = matrices.of_keys(layer.key(keys).transpose(1, 2))  # [B, D, L//2 + 1]
        correlation = matrices.back(
            (query * key + query_imaginary * key_imaginary).mean(dim=1),
            (query_imaginary * key - query * key_imaginary).mean(dim=1),
        )
        weight_at = layer.weight_at_delays(correlation)
        shifting = weight_at.index_select(1, matrices.delays).view(-1, length, matrices.steps)
        return layer.output(shifting @ layer.value(keys))  # type: ignore[no-any-return]


class RealFourierBlock(nn.Module):
    """`FourierBlock`: [B, L, D] to [B, L, D]."""

    def __init__(self, block: FourierBlock, steps: int) -> None:
        super().__init__()
        self.layout = block.layout
        frequencies = block.frequencies.numpy()
        self.of_queries = Transform(frequencies, steps, steps)
        self.mixing = ComplexMixing(block.weight)
        self.back = InverseTransform(frequencies, steps)

    def forward(self, queries: Tensor) -> Tensor:
        query = self.of_queries(self.layout.split(queries))
        return self.layout.merge(self.back(*self.mixing(*query)))


class RealFourierCrossBlock(nn.Module):
    """`FourierCrossBlock`: [B, L, D] and [B, S, D] to [B, L, D]."""

    def __init__(self, block: FourierCrossBlock, query_steps: int, key_steps: int) -> None:
        super().__init__()
        self.layout = block.layout
        kept = block.query_frequencies.numpy()
        self.of_queries = Transform(kept, query_steps, query_steps)
        self.of_keys = Transform(block.key_frequencies.numpy(), key_steps, key_steps)
        self.mixing = ComplexMixing(block.weight / block.layout.d_model**2)
        self.back = InverseTransform(kept, query_steps)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        query, query_imaginary = (part.transpose(-1, -2) for part in self.of_queries(self.layout.split(queries)))
        key, key_imaginary = self.of_keys(self.layout.split(keys))  # [B, h, d_k, N]
        attention, attention_imaginary = complex_tanh(  # [B, h, M, N]
            query @ key - query_imaginary @ key_imaginary, query @ key_imaginary + query_imaginary @ key
        )
        attention, attention_imaginary = attention.transpose(-1, -2), attention_imaginary.transpose(-1, -2)
        attended = key @ attention - key_imaginary @ attention_imaginary  # [B, h, d_k, M]
        attended_imaginary = key @ attention_imaginary + key_imaginary @ attention
        return self.layout.merge(self.back(*self.mixing(attended, attended_imaginary)))


class ComplexMixing(nn.Module):
    """A complex matrix per head and frequency, [h, d_k, d_k, M], as two real ones; [B, h, d_k, M] pairs to such."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.real: Tensor
        self.imaginary: Tensor
        self.register_buffer("real", weight.detach().real.contiguous())
        self.register_buffer("imaginary", weight.detach().imag.contiguous())

    def forward(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        return (
            self._mix(real, self.real) - self._mix(imaginary, self.imaginary),
            self._mix(real, self.imaginary) + self._mix(imaginary, self.real),
        )

    def _mix(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("bhim,hiom->bhom", x, weight)


class Transform(nn.Module):
    """Real [..., steps], followed by zeros up to `length`, to real and imaginary part of some frequencies, [..., M]."""

    def __init__(self, frequencies: npt.NDArray[np.int64], steps: int, length: int) -> None:
        super().__init__()
        cosine, sine = _waves(frequencies, steps, length)
        self.real: Tensor
        self.imaginary: Tensor
        self.register_buffer("real", torch.tensor(cosine.T, dtype=torch.float32), persistent=False)
        self.register_buffer("imaginary", torch.tensor(-sine.T, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.real, x @ self.imaginary


class InverseTransform(nn.Module):
    """Real and imaginary part of some frequencies, [..., M], the others being zero, to a real signal, [..., length]."""

    def __init__(self, frequencies: npt.NDArray[np.int64], length: int) -> None:
        super().__init__()
        cosine, sine = _waves(frequencies, length, length)
        # Every frequency but the mean and, of an even length, the highest also stands for its negative.
        share = np.where((frequencies == 0) | (2 * frequencies == length), 1, 2)[:, None] / length
        self.real: Tensor
        self.imaginary: Tensor
        self.register_buffer("real", torch.tensor(share * cosine, dtype=torch.float32), persistent=False)
        self.register_buffer("imaginary", torch.tensor(-share * sine, dtype=torch.float32), persistent=False)

    def forward(self, real: Tensor, imaginary: Tensor) -> Tensor:
        return real @ self.real + imaginary @ self.imaginary


def complex_tanh(real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
    """Return real and imaginary part of tanh(real + i·imaginary), without overflow for large arguments."""
    tanh, sine, cosine = real.tanh(), imaginary.sin(), imaginary.cos()
    below = cosine.square() + (tanh * sine).square()
    return tanh / below, sine * cosine * (1 - tanh.square()) / below


def _waves(
    frequencies: npt.NDArray[np.int64], steps: int, length: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return cosines and sines of 2π·f·t/length, [M, steps]; the whole number f·t is reduced before it is an angle."""
    angles = 2 * np.pi * ((frequencies[:, None] * np.arange(steps)) % length) / length
    return np.cos(angles), np.sin(angles)
