"""Which lengths leave a model nothing to work on."""

from __future__ import annotations

import pytest
import torch

from pals_core.data.lengths import WindowLengths
from pals_core.models.registry import build_forecaster
from pals_core.models.required_lengths import idle_problems, length_problems
from pals_core.spec import (
    MODEL_SPECS,
    AutoformerSpec,
    DLinearSpec,
    FEDformerSpec,
    FrozenSpec,
    NLinearSpec,
    PatchTSTSpec,
    Spec,
)


@pytest.mark.parametrize(("input_len", "pointers"), [(15, ["/model/patch_len"]), (16, [])])
def test_patchtst_needs_one_whole_patch(input_len: int, pointers: list[str]) -> None:
    problems = length_problems(PatchTSTSpec(), WindowLengths(input_len, 2, 3))
    assert [problem.pointer for problem in problems] == pointers


@pytest.mark.parametrize(("label_len", "horizon", "pointers"), [(0, 1, ["/data/label_len"]), (0, 2, []), (1, 1, [])])
def test_fedformer_needs_a_frequency_in_its_decoder(label_len: int, horizon: int, pointers: list[str]) -> None:
    problems = length_problems(FEDformerSpec(), WindowLengths(2, label_len, horizon))
    assert [problem.pointer for problem in problems] == pointers


@pytest.mark.parametrize(
    ("model", "input_len", "pointers"),
    [
        (AutoformerSpec(moving_avg=1), 24, ["/model/moving_avg"]),
        (DLinearSpec(moving_avg=1), 24, ["/model/moving_avg"]),
        (FEDformerSpec(moving_avg=1), 24, ["/model/moving_avg"]),
        (FEDformerSpec(moving_avg=3, modes=1), 24, ["/model/modes"]),
        (FEDformerSpec(), 3, ["/data/input_len"]),
        (FEDformerSpec(moving_avg=3, modes=2), 4, []),
        (AutoformerSpec(moving_avg=3), 2, []),
        (NLinearSpec(), 2, []),
    ],
    ids=str,
)
def test_what_leaves_most_weights_idle_is_told(model: FrozenSpec, input_len: int, pointers: list[str]) -> None:
    lengths = WindowLengths(input_len, 2, 3)
    problems = idle_problems(model, lengths)
    assert [problem.pointer for problem in problems] == pointers


@pytest.mark.parametrize("idle", [True, False])
@pytest.mark.parametrize("name", ["autoformer", "fedformer", "dlinear"])
def test_what_is_said_of_them_is_so(name: str, idle: bool) -> None:
    sizes = {} if name == "dlinear" else {"d_model": 8, "heads": 2, "d_ff": 8, "dropout": 0.0}
    model = {"name": name, "moving_avg": 1 if idle else 3} | sizes
    data = {"horizon": 3, "input_len": 12, "label_len": 6}
    torch.manual_seed(0)
    network = build_forecaster(Spec.model_validate({"data": data, "model": model}), 2, 1)
    steps = (12, 12, 9, 9)
    network(
        *(torch.randn(4, length, columns) for length, columns in zip(steps, (2, 1, 2, 1), strict=True))
    ).sum().backward()
    gradients = {name: float(parameter.grad.abs().max()) for name, parameter in network.named_parameters()}
    of_seasons = max(size for name, size in gradients.items() if name.startswith(("encoder", "remainder.weight")))
    assert (of_seasons < 1e-5 * max(gradients.values())) is idle


def test_the_usual_lengths_suit_every_model() -> None:
    for lengths in (WindowLengths(96, 48, 720), WindowLengths(36, 18, 1)):
        assert not [problem for model in MODEL_SPECS for problem in length_problems(model(), lengths)]
        assert not [problem for model in MODEL_SPECS for problem in idle_problems(model(), lengths)]
