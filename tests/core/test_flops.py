"""FLOPs against counts written out by hand from a network's sizes.

Sizes: D width, W feed-forward width, h heads, L input steps, T decoder steps, H horizon, C columns, F calendar
features.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pals_core.checkpoint.header import ProductKind
from pals_core.flops import FlopCount, count_flops
from pals_core.models.registry import FORECASTERS, build_forecaster
from pals_core.sparsity.masks import is_maskable
from pals_core.spec import Spec

D, W, h, L, H, C, F = 8, 12, 2, 10, 4, 3, 2
LABEL = 5
T = LABEL + H
SIZES = {"d_model": D, "d_ff": W, "heads": h}
Costs = dict[str, int]


def model_spec(name: str, **fields: Any) -> dict[str, Any]:
    sizes = {} if name in ("dlinear", "nlinear") else SIZES
    patches = {"patch_len": 4, "stride": 2} if name == "patchtst" else {}
    return {"name": name, **sizes, **patches, **fields}


def build(name: str, **fields: Any) -> nn.Module:
    data = {"input_len": L, "label_len": LABEL, "horizon": H}
    return build_forecaster(Spec.model_validate({"data": data, "model": model_spec(name, **fields)}), C, F)


def inputs(batch: int = 1) -> list[Tensor]:
    return [torch.randn(batch, steps, width) for steps, width in ((L, C), (L, F), (T, C), (T, F))]


def counted(name: str, **fields: Any) -> FlopCount:
    return count_flops(build(name, **fields), inputs())


def linear(rows: int, size_in: int, size_out: int) -> int:
    return 2 * rows * size_in * size_out


def convolution(steps_out: int, size_in: int, size_out: int) -> int:
    """Three taps."""
    return 2 * steps_out * 3 * size_in * size_out


def transform(rows: int, length: int) -> int:
    """Real signals of `length` to their spectra, or back."""
    return round(rows * 2.5 * length * math.log2(length))


def embedding(prefix: str, steps: int) -> Costs:
    return {f"{prefix}.value.weight": convolution(steps, C, D), f"{prefix}.calendar.weight": linear(steps, F, D)}


def embeddings() -> Costs:
    return embedding("encoder_embedding", L) | embedding("decoder_embedding", T)


def attention(prefix: str, queries: int, keys: int, times: int = 1) -> Costs:
    rows = {"query": queries, "key": keys, "value": keys, "output": queries}
    return {f"{prefix}.{part}.weight": times * linear(steps, D, D) for part, steps in rows.items()}


def feed_forward(prefix: str, rows: int) -> Costs:
    return {f"{prefix}.{part}.weight": linear(rows, D, W) for part in ("expand", "contract")}


def encoder_layer(prefix: str, rows: int) -> Costs:
    return attention(f"{prefix}.attention", rows, rows) | feed_forward(f"{prefix}.feed_forward", rows)


def last_decoder_layer(prefix: str, *, encoded: int, queries: int = H) -> Costs:
    """Of which only the horizon is read; `queries` are computed all the same where one's output depends on the rest."""
    return (
        attention(f"{prefix}.self_attention", queries, T)
        | attention(f"{prefix}.cross_attention", queries, encoded)
        | {f"{prefix}.cross_attention.output.weight": linear(H, D, D)}
        | feed_forward(f"{prefix}.feed_forward", H)
    )


def scores_and_mixture(queries: int, keys: int) -> int:
    """QKᵀ, then weights · V, over all heads."""
    return 2 * (2 * queries * keys * D)


def transformer() -> tuple[Costs, Costs]:
    weights = (
        embeddings()
        | encoder_layer("encoder.layers.0", L)
        | encoder_layer("encoder.layers.1", L)
        | last_decoder_layer("decoder.layers.0", encoded=L)
        | {"projection.weight": linear(H, D, C)}
    )
    products = {
        "encoder.layers.0.attention matrix": scores_and_mixture(L, L),
        "encoder.layers.1.attention matrix": scores_and_mixture(L, L),
        "decoder.layers.0.self_attention matrix": scores_and_mixture(H, T),
        "decoder.layers.0.cross_attention matrix": scores_and_mixture(H, L),
    }
    return weights, products


def nstransformer() -> tuple[Costs, Costs]:
    weights, products = transformer()
    for projector, outputs in (("tau_projector", 1), ("delta_projector", L)):
        weights |= {
            f"{projector}.convolution.weight": convolution(C, L, 1),  # slides over the columns
            f"{projector}.hidden.0.weight": linear(1, 2 * C, 6),
            f"{projector}.hidden.1.weight": linear(1, 6, 5),
            f"{projector}.output.weight": linear(1, 5, outputs),
        }
    return weights, products


def informer() -> tuple[Costs, Costs]:
    factor = 1
    distilled = (L + 1) // 2 + 1

    def products_of(queries: int, keys: int) -> int:
        kept = min(queries, factor * math.ceil(math.log(queries)))
        selection = 2 * queries * keys * D
        return selection + scores_and_mixture(kept, keys)

    weights = (
        embeddings()
        | encoder_layer("encoder.layers.0", L)
        | {"encoder.distilling.0.convolution.weight": convolution(L + 2, D, D)}
        | encoder_layer("encoder.layers.1", distilled)
        | last_decoder_layer("decoder.layers.0", encoded=distilled, queries=T)
        | {"projection.weight": linear(H, D, C)}
    )
    products = {
        "encoder.layers.0.attention matrix": products_of(L, L),
        "encoder.layers.1.attention matrix": products_of(distilled, distilled),
        "decoder.layers.0.self_attention matrix": products_of(T, T),
        "decoder.layers.0.cross_attention matrix": products_of(T, distilled),
    }
    return weights, products


def autoformer() -> tuple[Costs, Costs]:
    weights = (
        embeddings()
        | encoder_layer("encoder.layers.0", L)
        | encoder_layer("encoder.layers.1", L)
        | attention("decoder.layers.0.self_attention", T, T)
        | attention("decoder.layers.0.cross_attention", T, L)
        | feed_forward("decoder.layers.0.feed_forward", T)
        | {"decoder.layers.0.trend.weight": convolution(T, D, C), "projection.weight": linear(T, D, C)}
    )

    def transforms(length: int) -> int:
        """Of queries, keys and values; back of the one correlation; of its softmax; back of the shifted values."""
        return 3 * transform(D, length) + 2 * transform(1, length) + transform(D, length)

    products = {
        "encoder.layers.0.attention fourier": transforms(L),
        "encoder.layers.1.attention fourier": transforms(L),
        "decoder.layers.0.self_attention fourier": transforms(T),
        "decoder.layers.0.cross_attention fourier": transforms(T),
    }
    return weights, products


def fedformer() -> tuple[Costs, Costs]:
    """Two modes are kept of the queries and of the keys; both encoder layers use one block."""
    modes, layers = 2, 2
    width = D // h

    def block(uses: int) -> int:
        return uses * 8 * h * modes * width * width  # a complex multiply–add is 8 FLOPs

    weights = embeddings()
    for layer in range(layers):
        prefix = f"encoder.layers.{layer}"
        weights |= {f"{prefix}.attention.{part}.weight": linear(L, D, D) for part in ("query", "output")}
        weights |= feed_forward(f"{prefix}.feed_forward", L)
    decoder = "decoder.layers.0"
    weights |= {f"{decoder}.self_attention.{part}.weight": linear(T, D, D) for part in ("query", "output")}
    weights |= {f"{decoder}.cross_attention.{part}.weight": linear(T, D, D) for part in ("query", "output")}
    weights |= {f"{decoder}.cross_attention.key.weight": linear(L, D, D)}
    weights |= feed_forward(f"{decoder}.feed_forward", T)
    weights |= {f"{decoder}.trend.weight": convolution(T, D, C), "projection.weight": linear(T, D, C)}
    weights |= {
        "encoder.layers.0.attention.block.weight": block(uses=layers),
        f"{decoder}.self_attention.block.weight": block(uses=1),
        f"{decoder}.cross_attention.block.weight": block(uses=1),
    }
    products = {
        "encoder.layers.0.attention.block fourier": layers * 2 * transform(D, L),
        f"{decoder}.self_attention.block fourier": 2 * transform(D, T),
        f"{decoder}.cross_attention.block fourier": 2 * transform(D, T) + transform(D, L),
        f"{decoder}.cross_attention.block matrix": 2 * (8 * h * modes * modes * width),
    }
    return weights, products


def patchtst() -> tuple[Costs, Costs]:
    patches = (L - 4) // 2 + 2
    weights = (
        {"patch_embedding.weight": linear(C * patches, 4, D)}
        | encoder_layer("layers.0", C * patches)
        | encoder_layer("layers.1", C * patches)
        | {"head.weight": linear(C, D * patches, H)}
    )
    products = {f"layers.{layer}.attention matrix": C * scores_and_mixture(patches, patches) for layer in (0, 1)}
    return weights, products


def itransformer() -> tuple[Costs, Costs]:
    tokens = C + F
    weights = (
        {"embedding.weight": linear(tokens, L, D)}
        | encoder_layer("encoder.layers.0", tokens)
        | encoder_layer("encoder.layers.1", tokens)
        | {"projection.weight": linear(C, D, H)}
    )
    products = {f"encoder.layers.{layer}.attention matrix": scores_and_mixture(tokens, tokens) for layer in (0, 1)}
    return weights, products


BY_HAND: list[tuple[str, dict[str, Any], tuple[Costs, Costs]]] = [
    ("transformer", {}, transformer()),
    ("nstransformer", {"projector_hidden": [6, 5]}, nstransformer()),
    ("informer", {"factor": 1}, informer()),
    ("autoformer", {}, autoformer()),
    ("fedformer", {"modes": 2}, fedformer()),
    ("patchtst", {}, patchtst()),
    ("itransformer", {}, itransformer()),
    ("dlinear", {}, ({"trend.weight": linear(C, L, H), "remainder.weight": linear(C, L, H)}, {})),
    ("dlinear", {"per_column": True}, ({"trend.weight": linear(C, L, H), "remainder.weight": linear(C, L, H)}, {})),
    ("nlinear", {}, ({"linear.weight": linear(C, L, H)}, {})),
]


@pytest.mark.parametrize(("name", "fields", "expected"), BY_HAND, ids=lambda value: str(value)[:40])
def test_every_layer_and_product_costs_what_its_sizes_say(
    name: str, fields: dict[str, Any], expected: tuple[Costs, Costs]
) -> None:
    weights, products = expected
    flops = counted(name, **fields)
    assert flops.of_weights == weights
    assert {f"{product.module} {product.kind}": product.flops for product in flops.products} == products


def test_every_model_is_counted_by_hand() -> None:
    assert {name for name, _, _ in BY_HAND} == set(FORECASTERS)


@pytest.mark.parametrize(
    "fields",
    [{"modes": 1}, {"heads": D}, {"heads": 1, "modes": 1}, {"mode_select": "lowest", "published_axis_order": True}],
    ids=str,
)
def test_no_size_of_a_fourier_block_goes_uncounted(fields: dict[str, int]) -> None:
    """Einstein sums take another way over axes of length one."""
    model = build("fedformer", **fields)
    modes, heads = min(fields.get("modes", 64), T // 2), fields.get("heads", h)
    flops = count_flops(model, inputs()).of_weights["decoder.layers.0.self_attention.block.weight"]
    assert flops == 8 * modes * D * D // heads


@pytest.mark.parametrize("name", sorted(FORECASTERS))
def test_each_element_of_a_weight_multiplies_equally_often(name: str) -> None:
    model = build(name)
    flops = count_flops(model, inputs())
    maskable = {label: weight for label, weight in model.named_parameters() if is_maskable(label, weight)}
    assert set(flops.of_weights) == set(maskable)
    for label, weight in maskable.items():
        assert flops.of_weights[label] > 0, label
        assert flops.of_weights[label] % weight.numel() == 0, label


@pytest.mark.parametrize("name", sorted(FORECASTERS))
def test_the_size_of_the_batch_makes_no_difference(name: str) -> None:
    model = build(name)
    assert count_flops(model, inputs(batch=5)) == count_flops(model, inputs())


@pytest.mark.parametrize("name", sorted(FORECASTERS))
def test_counting_leaves_the_model_and_the_random_state_alone(name: str) -> None:
    model = build(name).train()
    before = {label: value.clone() for label, value in model.state_dict().items()}
    objects = [*model.parameters(), *model.buffers()]
    sample = inputs()
    random = torch.get_rng_state()
    count_flops(model, sample)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in model.modules())
    assert all(one is other for one, other in zip(objects, (*model.parameters(), *model.buffers()), strict=True))
    assert all(torch.equal(value, before[label]) for label, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Odd(nn.Module):
    """A weight used as a transposed and scaled copy, twice, and a product of two weights, in no module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(4, 4))
        self.second = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        copy = (self.first.t() * 0.5).contiguous()
        return x @ copy @ copy + x @ (self.first @ self.second)


def test_a_weight_is_known_through_views_and_copies_but_not_in_products_of_weights() -> None:
    flops = count_flops(Odd(), [torch.randn(1, 3, 4)])
    once = linear(3, 4, 4)
    assert flops.of_weights == {"first": 2 * once, "second": 0}
    products = Counter({(product.module, product.kind): product.flops for product in flops.products})
    assert products == {("forecaster", ProductKind.MATRIX): linear(4, 4, 4) + once}


@pytest.mark.parametrize("fields", [{}, {"modes": 1}, {"heads": D}, {"heads": 1, "modes": 1}], ids=str)
def test_attention_among_frequencies_costs_the_same_whatever_its_sizes(fields: dict[str, int]) -> None:
    model = build("fedformer", **fields)
    modes = fields.get("modes", 64)
    attention = 2 * (8 * min(modes, T // 2) * min(modes, L // 2) * D)
    products = count_flops(model, inputs()).products
    counted = [product.flops for product in products if "cross" in product.module and product.kind == "matrix"]
    assert counted == [attention]
