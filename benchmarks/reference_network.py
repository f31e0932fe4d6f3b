"""Forecasters written in plain PyTorch the way the published program of PALS writes them.

They share no layer with pals_core, so that the yardstick stays as it is when pals_core becomes faster. Dropout is at
every published site, the feed-forward pair is two 1×1 convolutions between transposes, attention is written with
einsum over [B, L, h, d_k], and the decoder's output layer runs over its whole length. Parameters have the names of
ours.

Shapes: B batch, L input steps, T decoder steps, H horizon, C columns, F calendar features, D width, h heads.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pals_core.data.lengths import WindowLengths, window_lengths
from pals_core.spec import DLinearSpec, NSTransformerSpec, Spec


class Embedding(nn.Module):
    """Circular convolution, calendar layer and sinusoidal position: [B, T, C] and [B, T, F] to [B, T, D]."""

    position: Tensor

    def __init__(self, columns: int, features: int, d_model: int, dropout: float, longest: int = 5000) -> None:
        super().__init__()
        self.value = nn.Conv1d(columns, d_model, kernel_size=3, padding=1, padding_mode="circular", bias=False)
        self.calendar = nn.Linear(features, d_model, bias=False)
        code = torch.zeros(longest, d_model)
        rates = torch.exp(torch.arange(0, d_model, 2).float() * -(math.log(10000.0) / d_model))
        code[:, 0::2] = torch.sin(torch.arange(longest).float().unsqueeze(1) * rates)
        code[:, 1::2] = torch.cos(torch.arange(longest).float().unsqueeze(1) * rates)
        self.register_buffer("position", code.unsqueeze(0), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, marks: Tensor) -> Tensor:
        embedded = self.value(x.permute(0, 2, 1)).transpose(1, 2) + self.calendar(marks) + self.position[:, : x.size(1)]
        return self.dropout(embedded)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """De-stationary multi-head attention: [B, L, D] queries and [B, S, D] keys to [B, L, D]."""

    def __init__(self, d_model: int, heads: int, dropout: float, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, keys: Tensor, tau: Tensor, delta: Tensor | None) -> Tensor:
        batch, length, _ = queries.shape
        query = self.query(queries).view(batch, length, self.heads, -1)
        key = self.key(keys).view(batch, keys.shape[1], self.heads, -1)
        value = self.value(keys).view(batch, keys.shape[1], self.heads, -1)
        shift: Tensor | float = 0.0 if delta is None else delta.unsqueeze(1).unsqueeze(1)
        scores = torch.einsum("blhe,bshe->bhls", query, key) * tau.unsqueeze(1).unsqueeze(1) + shift
        if self.causal:
            later = torch.triu(torch.ones((batch, 1, length, length), dtype=torch.bool, device=scores.device), 1)
            scores.masked_fill_(later, -math.inf)
        weights = self.dropout(torch.softmax(scores / math.sqrt(query.shape[-1]), dim=-1))
        mixed = torch.einsum("bhls,bshd->blhd", weights, value).contiguous()
        return self.output(mixed.view(batch, length, -1))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two 1×1 convolutions over time: [B, L, D] to [B, L, D]."""

    def __init__(self, d_model: int, d_ff: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Conv1d(d_model, d_ff, kernel_size=1)
        self.contract = nn.Conv1d(d_ff, d_model, kernel_size=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(nn.functional.gelu(self.expand(x.transpose(-1, 1))))
        return self.dropout(self.contract(hidden).transpose(-1, 1))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    def __init__(self, spec: NSTransformerSpec) -> None:
        super().__init__()
        self.attention = Attention(spec.d_model, spec.heads, spec.dropout, causal=False)
        self.feed_forward = FeedForward(spec.d_model, spec.d_ff, spec.dropout)
        self.attention_norm = nn.LayerNorm(spec.d_model)
        self.feed_forward_norm = nn.LayerNorm(spec.d_model)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x: Tensor, tau: Tensor, delta: Tensor) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, x, tau, delta)))
        return self.feed_forward_norm(x + self.feed_forward(x))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    def __init__(self, spec: NSTransformerSpec) -> None:
        super().__init__()
        self.self_attention = Attention(spec.d_model, spec.heads, spec.dropout, causal=True)
        self.cross_attention = Attention(spec.d_model, spec.heads, spec.dropout, causal=False)
        self.feed_forward = FeedForward(spec.d_model, spec.d_ff, spec.dropout)
        self.self_attention_norm = nn.LayerNorm(spec.d_model)
        self.cross_attention_norm = nn.LayerNorm(spec.d_model)
        self.feed_forward_norm = nn.LayerNorm(spec.d_model)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x: Tensor, encoded: Tensor, tau: Tensor, delta: Tensor) -> Tensor:
        x = self.self_attention_norm(x + self.dropout(self.self_attention(x, x, tau, None)))
        x = self.cross_attention_norm(x + self.dropout(self.cross_attention(x, encoded, tau, delta)))
        return self.feed_forward_norm(x + self.feed_forward(x))  # type: ignore[no-any-return]


class Stack(nn.Module):
    """Layers and the final norm."""

    def __init__(self, layers: Sequence[nn.Module], d_model: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, *given)
        return self.norm(x)  # type: ignore[no-any-return]


class Projector(nn.Module):
    """[B, L, C] and [B, 1, C] to [B, outputs]."""

    def __init__(self, lengths: WindowLengths, columns: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(
            lengths.input_len, 1, kernel_size=3, padding=1, padding_mode="circular", bias=False
        )
        self.hidden = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise((2 * columns, *hidden)))
        self.output = nn.Linear(hidden[-1], outputs, bias=False)

    def forward(self, window: Tensor, statistic: Tensor) -> Tensor:
        x = torch.cat([self.convolution(window), statistic], dim=1).view(window.shape[0], -1)
        for layer in self.hidden:
            x = nn.functional.relu(layer(x))
        return self.output(x)  # type: ignore[no-any-return]


class NSTransformer(nn.Module):
    """Non-stationary Transformer (arXiv 2205.14415)."""

    def __init__(self, spec: NSTransformerSpec, lengths: WindowLengths, columns: int, features: int) -> None:
        super().__init__()
        self.lengths = lengths
        self.encoder_embedding = Embedding(columns, features, spec.d_model, spec.dropout)
        self.decoder_embedding = Embedding(columns, features, spec.d_model, spec.dropout)
        self.encoder = Stack([EncoderLayer(spec) for _ in range(spec.encoder_layers)], spec.d_model)
        self.decoder = Stack([DecoderLayer(spec) for _ in range(spec.decoder_layers)], spec.d_model)
        self.projection = nn.Linear(spec.d_model, columns)
        self.tau_projector = Projector(lengths, columns, spec.projector_hidden, 1)
        self.delta_projector = Projector(lengths, columns, spec.projector_hidden, lengths.input_len)

    def forward(self, x_enc: Tensor, x_mark_enc: Tensor, x_dec: Tensor, x_mark_dec: Tensor) -> Tensor:
        raw = x_enc.clone().detach()
        mean = x_enc.mean(1, keepdim=True).detach()
        x_enc = x_enc - mean
        std = torch.sqrt(torch.var(x_enc, dim=1, keepdim=True, unbiased=False) + 1e-5).detach()
        x_enc = x_enc / std
        zeros = torch.zeros_like(x_dec[:, -self.lengths.horizon :, :])
        seed = torch.cat([x_enc[:, self.lengths.input_len - self.lengths.label_len :, :], zeros], dim=1).clone()
        tau = self.tau_projector(raw, std).exp()
        delta = self.delta_projector(raw, mean)
        encoded = self.encoder(self.encoder_embedding(x_enc, x_mark_enc), tau, delta)
        decoded = self.projection(self.decoder(self.decoder_embedding(seed, x_mark_dec), encoded, tau, delta))
        return (decoded * std + mean)[:, -self.lengths.horizon :, :]  # type: ignore[no-any-return]


class DLinear(nn.Module):
    """Trend and remainder, one linear layer each, shared by the columns (arXiv 2205.13504)."""

    def __init__(self, spec: DLinearSpec, lengths: WindowLengths) -> None:
        super().__init__()
        self.margin = (spec.moving_avg - 1) // 2
        self.average = nn.AvgPool1d(kernel_size=spec.moving_avg, stride=1, padding=0)
        self.remainder = nn.Linear(lengths.input_len, lengths.horizon)
        self.trend = nn.Linear(lengths.input_len, lengths.horizon)

    def forward(self, x_enc: Tensor, x_mark_enc: Tensor, x_dec: Tensor, x_mark_dec: Tensor) -> Tensor:  # noqa: ARG002
        front = x_enc[:, 0:1, :].repeat(1, self.margin, 1)
        end = x_enc[:, -1:, :].repeat(1, self.margin, 1)
        trend = self.average(torch.cat([front, x_enc, end], dim=1).permute(0, 2, 1)).permute(0, 2, 1)
        remainder = (x_enc - trend).permute(0, 2, 1)
        forecast = self.remainder(remainder) + self.trend(trend.permute(0, 2, 1))
        return forecast.permute(0, 2, 1)  # type: ignore[no-any-return]


def reference_network(spec: Spec, ours: nn.Module, columns: int, features: int) -> nn.Module:
    """Return the network of a resolved spec with the parameters of `ours`, on their device.

    NSTransformer and DLinear (shared by the columns) are those of this module; every other forecaster is a copy of
    ours, so that only the training around it differs.
    """
    lengths = window_lengths(spec.data)
    if isinstance(spec.model, NSTransformerSpec) and features:
        network: nn.Module = NSTransformer(spec.model, lengths, columns, features)
    elif isinstance(spec.model, DLinearSpec) and not spec.model.per_column:
        network = DLinear(spec.model, lengths)
    else:
        return copy.deepcopy(ours)
    device = next(ours.parameters()).device
    mine, theirs = dict(network.named_parameters()), dict(ours.named_parameters())
    if set(mine) != set(theirs):
        raise ValueError(f"parameters without a counterpart: {sorted(set(mine) ^ set(theirs))}")
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.copy_(theirs[name].view(parameter.shape))
    return network.to(device)
