from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pals_core.sparsity import ranking
from pals_core.sparsity.ranking import FirstOf, ascending_keys, descending_keys

DTYPES = [torch.float32, torch.float64, torch.complex64]


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    scale=st.sampled_from([1e-42, 1e-3, 1.0, 1e30]),
    distinct=st.integers(1, 40),
    share=st.floats(0.01, 1),
    largest=st.booleans(),
    dtype=st.sampled_from(DTYPES),
)
def test_the_first_of_several_tensors_are_those_of_a_stable_sort(
    seed: int, sizes: list[int], scale: float, distinct: int, share: float, largest: bool, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = [(torch.randint(-distinct, distinct + 1, (n,), generator=generator) * scale).to(dtype) for n in sizes]
    candidates = [torch.rand(n, generator=generator) < 0.7 for n in sizes]
    available = int(torch.cat(candidates).sum())
    if not available:
        return
    count = max(1, int(share * available))
    keys_of = descending_keys if largest else ascending_keys
    keys = [keys_of(value, candidate) for value, candidate in zip(values, candidates, strict=True)]

    first = FirstOf.among(lambda: keys, count)
    taken = torch.cat([first.take(of_tensor) for of_tensor in keys])
    as_one = torch.cat(keys)
    taken_as_one = FirstOf.of(as_one, count).take(as_one)

    ranked = torch.cat(values).abs().double() * (-1 if largest else 1)
    ranked[~torch.cat(candidates)] = torch.inf
    expected = torch.zeros(len(ranked), dtype=torch.bool)
    expected[ranked.sort(stable=True).indices[:count]] = True
    assert torch.equal(taken, expected)
    assert torch.equal(taken_as_one, expected)


LARGE = 70_001


def _columns(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(LARGE, generator=generator) * (torch.arange(LARGE) % 64)


@pytest.mark.parametrize(
    "values_of",
    [
        lambda generator: torch.randn(LARGE, generator=generator),
        lambda generator: torch.randn(LARGE, generator=generator).bfloat16().float(),
        lambda generator: torch.randn(LARGE, generator=generator).relu(),
        lambda generator: torch.randn(LARGE, generator=generator).exp().pow(20).sort().values,
        lambda generator: torch.where(torch.arange(LARGE) % 17 == 0, torch.rand(LARGE, generator=generator), 1e9),
        _columns,
        lambda generator: torch.zeros(LARGE),
    ],
    ids=["normal", "rounded", "half are zero", "sorted, of any size", "the sample misleads", "by columns", "all zero"],
)
@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("fast", [False, True], ids=["by counting", "by parting"])
def test_of_a_large_tensor_the_first_are_those_of_a_stable_sort_too(
    values_of: Callable[[torch.Generator], torch.Tensor], largest: bool, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "compresses_fast", lambda: fast)
    generator = torch.Generator().manual_seed(0)
    values = values_of(generator)
    candidates = torch.rand(LARGE, generator=generator) < 0.7
    keys = (descending_keys if largest else ascending_keys)(values, candidates)
    ranked = values.abs() * (-1 if largest else 1)
    ranked[~candidates] = torch.inf
    order = ranked.sort(stable=True).indices
    available = int(candidates.sum())

    for count in (1, 2, available // 50, available // 2, available - 2, available):
        expected = torch.zeros(LARGE, dtype=torch.bool)
        expected[order[:count]] = True
        assert torch.equal(FirstOf.of(keys, count).take(keys), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinite_values_rank_before_what_is_no_candidate(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, torch.inf, -0.0, -torch.inf]).to(dtype)
    candidates = torch.tensor([True, True, False, True])
    for keys in (ascending_keys(values, candidates), descending_keys(values, candidates)):
        assert FirstOf.of(keys, 3).take(keys).tolist() == [True, True, False, True]


def test_ranking_leaves_the_values_alone() -> None:
    values = torch.tensor([[-3.0, 1.0], [2.0, -0.5]])
    before = values.clone()
    everything = torch.ones(2, 2, dtype=torch.bool)
    for keys in (ascending_keys(values, everything), descending_keys(values, everything)):
        FirstOf.of(keys, 2).take(keys)
    assert torch.equal(values, before)


def test_nothing_to_rank_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to rank"):
        FirstOf.among(tuple, 1)
