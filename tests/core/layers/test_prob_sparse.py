"""ProbSparse attention against its definition, one sample, head and query at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pals_core.layers.attention import MultiHeadAttention
from pals_core.layers.prob_sparse import ProbSparseAttention


def layer(
    query_len: int, key_len: int, *, factor: int = 1, published_axis_order: bool = False, seed: int = 0
) -> ProbSparseAttention:
    torch.manual_seed(0)
    return ProbSparseAttention(
        12,
        3,
        query_len=query_len,
        key_len=key_len,
        factor=factor,
        generator=torch.Generator().manual_seed(seed),
        published_axis_order=published_axis_order,
    ).eval()


def by_hand(attention: ProbSparseAttention, queries: Tensor, keys: Tensor, kept: int, *, causal: bool) -> Tensor:
    """The heads' output before the last projection, [B, Q, h, d_k]."""
    query, key, value = (
        projection(source).unflatten(-1, (3, 4))
        for projection, source in ((attention.query, queries), (attention.key, keys), (attention.value, keys))
    )
    mixed = torch.zeros_like(query)
    for sample in range(len(query)):
        for head in range(3):
            q, k, v = query[sample, :, head], key[sample, :, head], value[sample, :, head]
            selectivity = []
            for step, sampled in enumerate(attention.sampled_keys.tolist()):
                scores = [float(q[step] @ k[place]) for place in sampled]
                selectivity.append(max(scores) - sum(scores) / len(k))
            chosen = sorted(range(len(q)), key=lambda step: selectivity[step])[-kept:]
            for step in range(len(q)):
                seen = step + 1 if causal else len(k)
                if step in chosen:
                    mixed[sample, step, head] = (k[:seen] @ q[step] / math.sqrt(4)).softmax(0) @ v[:seen]
                else:
                    mixed[sample, step, head] = v[:seen].sum(0) if causal else v.mean(0)
    return mixed


@pytest.mark.parametrize("causal", [False, True])
def test_selective_queries_attend_and_the_others_get_a_mean_or_a_running_sum(causal: bool) -> None:
    queries = torch.randn(2, 9, 12, generator=torch.Generator().manual_seed(1))
    keys = queries if causal else torch.randn(2, 20, 12, generator=torch.Generator().manual_seed(2))
    attention = layer(9, keys.shape[1])
    assert attention.sampled_keys.shape == (9, 3)
    with torch.no_grad():
        expected = attention.output(by_hand(attention, queries, keys, 3, causal=causal).flatten(2))
        assert_close(attention(queries, keys, causal=causal), expected, rtol=0, atol=1e-5)


def test_the_published_axis_order_reads_heads_as_steps() -> None:
    queries = torch.randn(2, 9, 12, generator=torch.Generator().manual_seed(1))
    attention = layer(9, 9, published_axis_order=True)
    with torch.no_grad():
        mixed = by_hand(attention, queries, queries, 3, causal=False)
        expected = attention.output(mixed.transpose(1, 2).reshape(2, 9, 12))
        assert_close(attention(queries, queries), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_with_every_query_kept_it_is_full_attention(causal: bool) -> None:
    attention, full = layer(7, 7, factor=9), MultiHeadAttention(12, 3, dropout=0.0)
    full.load_state_dict(attention.state_dict(), strict=False)
    x = torch.randn(2, 7, 12)
    assert attention.kept_queries == 7
    assert_close(attention(x, x, causal=causal), full(x, x, causal=causal), rtol=0, atol=1e-6)


def test_training_draws_its_keys_anew_and_evaluation_keeps_them() -> None:
    attention, x = layer(40, 40), torch.randn(1, 40, 12)
    sampled = attention.sampled_keys.clone()
    with torch.no_grad():
        torch.manual_seed(0)
        once = attention.train()(x, x)
        assert not torch.equal(once, attention(x, x))
        torch.manual_seed(0)
        assert torch.equal(once, attention(x, x))
        assert torch.equal(attention.eval()(x, x), attention(x, x))
    assert torch.equal(attention.sampled_keys, sampled)


@pytest.mark.parametrize(("length", "factor", "count"), [(1, 3, 1), (2, 1, 1), (3, 3, 3), (96, 3, 15), (96, 1, 5)])
def test_the_number_of_queries_grows_with_the_logarithm(length: int, factor: int, count: int) -> None:
    attention = layer(length, length, factor=factor)
    assert attention.kept_queries == count
    assert attention.sampled_keys.shape == (length, count)
    assert int(attention.sampled_keys.min()) >= 0
    assert int(attention.sampled_keys.max()) < length


@pytest.mark.parametrize("published_axis_order", [False, True])
def test_the_last_queries_alone_get_what_they_get_among_all(published_axis_order: bool) -> None:
    attention = layer(9, 9, published_axis_order=published_axis_order)
    x = torch.randn(2, 9, 12)
    full = attention(x, x, causal=True)
    assert_close(attention(x, x, causal=True, last=4), full[:, -4:], rtol=0, atol=1e-6)
