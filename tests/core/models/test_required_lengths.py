"""Which lengths leave a model nothing to work on."""

from __future__ import annotations

import pytest

from pals_core.data.lengths import WindowLengths
from pals_core.models.required_lengths import length_problems
from pals_core.spec import MODEL_SPECS, FEDformerSpec, PatchTSTSpec


@pytest.mark.parametrize(("input_len", "pointers"), [(15, ["/model/patch_len"]), (16, [])])
def test_patchtst_needs_one_whole_patch(input_len: int, pointers: list[str]) -> None:
    problems = length_problems(PatchTSTSpec(), WindowLengths(input_len, 2, 3))
    assert [problem.pointer for problem in problems] == pointers


@pytest.mark.parametrize(("label_len", "horizon", "pointers"), [(0, 1, ["/data/label_len"]), (0, 2, []), (1, 1, [])])
def test_fedformer_needs_a_frequency_in_its_decoder(label_len: int, horizon: int, pointers: list[str]) -> None:
    problems = length_problems(FEDformerSpec(), WindowLengths(2, label_len, horizon))
    assert [problem.pointer for problem in problems] == pointers


def test_the_usual_lengths_suit_every_model() -> None:
    for lengths in (WindowLengths(96, 48, 720), WindowLengths(36, 18, 1)):
        assert not [problem for model in MODEL_SPECS for problem in length_problems(model(), lengths)]
