"""The yardstick trains the same mathematics as pals_core."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.testing import assert_close

from benchmarks.reference_loop import ReferenceLoop, WindowDataset
from benchmarks.reference_masks import ReferenceMasks
from benchmarks.reference_network import reference_network
from pals_core.data.audit import profile_of
from pals_core.data.split import split_rows
from pals_core.data.table import Table
from pals_core.data.windows import make_windows
from pals_core.feasibility import check, plan, resolve
from pals_core.models.registry import build_forecaster
from pals_core.sparsity.decision import Move
from pals_core.sparsity.exchange import exchange
from pals_core.sparsity.growth import GradientScores
from pals_core.sparsity.masks import MaskSet
from pals_core.spec import Spec, TrainingSpec
from pals_core.training import optimization
from pals_core.training.arithmetic import Arithmetic
from pals_core.training.events import EpochEnd, Finished, MaskUpdate
from pals_core.training.forward import ForwardPass
from pals_core.training.trainer import Trainer
from pals_core.training.validation import all_windows, mean_squared_error

FEATURES = 3  # of daily data


@pytest.fixture(scope="module")
def waves() -> Table:
    steps = np.arange(260)
    values = np.stack((np.sin(steps / 4), np.cos(steps / 9)), axis=1)
    values += 0.1 * np.random.default_rng(3).normal(size=values.shape)
    return Table(pd.date_range("2021-03-01", periods=260, freq="D").as_unit("us"), values, ("a", "b"), "D")


SMALL = {
    "nstransformer": {"d_model": 16, "d_ff": 24, "heads": 2, "dropout": 0.0, "projector_hidden": [5, 7]},
    "dlinear": {"moving_avg": 5},
    "informer": {"d_model": 16, "d_ff": 24, "heads": 2, "dropout": 0.0},
}


def spec_of(table: Table, model: str = "nstransformer", method: str = "pals", **pals: Any) -> Spec:
    fields: dict[str, Any] = {
        "data": {"input_len": 12, "label_len": 5, "horizon": 4},
        "model": {"name": model} | SMALL[model],
        "method": {"name": method} | ({"update_interval": 2} | pals if method == "pals" else {}),
        "training": {"epochs": 3, "batch_size": 16, "learning_rate": 1e-3},
    }
    spec = resolve(Spec.model_validate(fields), profile_of(table))
    assert not check(spec, profile_of(table))
    return spec


def pair(table: Table, model: str) -> tuple[nn.Module, nn.Module]:
    spec = spec_of(table, model)
    torch.manual_seed(4)
    ours = build_forecaster(spec, 2, FEATURES)
    return ours, reference_network(spec, ours, 2, FEATURES)


@pytest.mark.parametrize("model", ["nstransformer", "dlinear"])
def test_its_network_computes_what_ours_does_and_so_do_its_gradients(waves: Table, model: str) -> None:
    ours, reference = pair(waves, model)
    assert type(ours) is not type(reference)
    batch = make_windows(waves, spec_of(waves, model).data).train.batch(torch.arange(16))
    losses = []
    for network in (ours, reference):
        network.train()
        forecast = network(batch.x_enc, batch.x_mark_enc, batch.x_dec, batch.x_mark_dec)
        loss = nn.functional.mse_loss(forecast, batch.target)
        loss.backward()
        losses.append(loss)

    assert_close(losses[1], losses[0], rtol=0, atol=1e-5)
    gradients = dict(ours.named_parameters())
    for name, parameter in reference.named_parameters():
        expected = gradients[name].grad
        assert expected is not None
        assert parameter.grad is not None
        assert_close(parameter.grad.view(expected.shape), expected, rtol=0, atol=1e-5, msg=name)


def test_another_forecaster_is_trained_by_the_same_loop(waves: Table) -> None:
    ours, reference = pair(waves, "informer")

    assert type(ours) is type(reference)
    parameters = dict(ours.named_parameters())
    for name, parameter in reference.named_parameters():
        assert torch.equal(parameter, parameters[name])
        assert parameter is not parameters[name]


def test_parameters_that_do_not_match_are_an_error(waves: Table) -> None:
    with pytest.raises(ValueError, match=r"without a counterpart: \['projection"):
        reference_network(spec_of(waves, "dlinear"), nn.ModuleDict({"projection": nn.Linear(2, 2)}), 2, FEATURES)


def test_its_masks_change_exactly_as_ours(waves: Table) -> None:
    ours, reference = pair(waves, "nstransformer")
    masks, theirs = MaskSet(ours.named_parameters()), ReferenceMasks(reference)
    scores = GradientScores(masks)
    generator = torch.Generator().manual_seed(5)
    counterpart = dict(reference.named_parameters())
    moves = [Move.SHRINK, Move.SHRINK, Move.STABLE, Move.EXPAND, Move.SHRINK, Move.EXPAND]
    for number, move in enumerate(moves):
        for name, parameter in ours.named_parameters():
            # Weights and gradients of zero are there too, so that equal ones have to be chosen among.
            step = torch.randn(parameter.shape, generator=generator) * (torch.arange(parameter.numel()) % 3).view(
                parameter.shape
            )
            with torch.no_grad():
                parameter.add_(step * 0.1)
                counterpart[name].copy_(parameter.view(counterpart[name].shape))
            parameter.grad = step.clone()
            counterpart[name].grad = step.view(counterpart[name].shape).clone()
        masks.apply()
        theirs.multiply()
        rate = 0.5 - 0.05 * number

        exchange(masks, scores, rate=rate, move=move, factor=1.3)
        theirs.update(move, rate, 1.3)

        masks.apply()
        theirs.multiply()
        assert theirs.sparsity == masks.sparsity
        for name in masks:
            assert torch.equal(theirs.masks[name].bool().view(masks[name].shape), masks[name]), name
            assert torch.equal(counterpart[name].view(masks[name].shape), masks.parameter(name)), name


def test_a_weight_without_gradient_cannot_grow() -> None:
    masks = ReferenceMasks(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="no gradient"):
        masks.update(Move.SHRINK, 0.5, 1.1)


def test_its_samples_are_our_windows(waves: Table) -> None:
    windows = make_windows(waves, spec_of(waves).data)
    batch = windows.validation.batch(torch.tensor([3]))
    dataset = WindowDataset(windows.validation, split_rows(len(waves.times), spec_of(waves).data.split).validation)
    x_enc, known, x_mark_enc, x_mark_dec = dataset[3]

    assert np.array_equal(x_enc, batch.x_enc[0].double())
    assert np.array_equal(x_mark_enc, batch.x_mark_enc[0].double())
    assert np.array_equal(x_mark_dec, batch.x_mark_dec[0].double())
    assert np.array_equal(known[-4:], batch.target[0].double())
    assert np.array_equal(known[:-4], batch.x_dec[0, :5].double())
    assert len(dataset) == len(windows.validation)


def test_it_evaluates_every_window_as_we_do(waves: Table) -> None:
    spec = spec_of(waves)
    loop = ReferenceLoop(spec, waves)
    windows = make_windows(waves, spec.data)
    torch.manual_seed(spec.training.seed)
    ours = build_forecaster(spec, 2, FEATURES)

    forward = ForwardPass(ours, torch.device("cpu"), Arithmetic())
    expected = mean_squared_error(forward, windows.test, all_windows(windows.test, torch.device("cpu")))
    assert loop.evaluate(loop.test) == pytest.approx(expected, rel=1e-5)
    assert loop.network.training


def test_it_updates_when_we_do_and_decides_after_the_freeze_as_well(waves: Table, tmp_path: Path) -> None:
    spec = spec_of(waves)
    loop = ReferenceLoop(spec, waves)
    planned = plan(spec, profile_of(waves))

    trained = loop.run(tmp_path)

    assert len(trained.losses) == planned.total_steps
    assert all(math.isfinite(loss) for loss in trained.losses)
    assert np.mean(trained.losses[-5:]) < np.mean(trained.losses[:5])
    assert len(trained.sparsities) == planned.updates
    assert len(trained.decision_losses) == planned.total_steps // 2 > planned.updates
    assert trained.sparsities[0] < trained.sparsities[4]
    calls = {part: len(seconds) for part, seconds in loop.times.seconds.items()}
    assert calls.pop("checkpoint") >= 1
    steps = planned.total_steps
    assert calls == dict.fromkeys(("data", "zero gradients", "forward", "backward", "optimiser"), steps) | {
        "masks": steps + planned.updates,
        "decision": steps // 2,
        "mask update": planned.updates,
        "evaluation": 3,
        "test evaluation": 3,
    }
    for name, parameter in loop.network.named_parameters():
        if name in loop.masks.masks:
            assert not parameter[loop.masks.masks[name] == 0].any()


@pytest.fixture
def moments_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let our trainer keep Adam's moments of inactive weights, and feed them, as the published program does."""
    held: list[MaskSet] = []
    apply, make_optimizer = MaskSet.apply, optimization.make_optimizer

    def apply_to_weights(
        masks: MaskSet, optimizer: Optimizer | None = None, before: Mapping[str, Tensor] | None = None
    ) -> None:
        del optimizer
        held.append(masks)
        apply(masks, None, before)

    def optimizer_that_masks(model: nn.Module, recipe: TrainingSpec) -> Optimizer:
        optimizer = make_optimizer(model, recipe)
        optimizer.register_step_post_hook(lambda *_: apply(held[-1]))
        return optimizer

    monkeypatch.setattr(MaskSet, "apply", apply_to_weights)
    monkeypatch.setattr(MaskSet, "apply_to_gradients", lambda _: None)
    monkeypatch.setattr("pals_core.training.loop.make_optimizer", optimizer_that_masks)


@pytest.mark.usefixtures("moments_kept")
def test_but_for_moments_and_dropout_a_whole_training_is_ours(waves: Table, tmp_path: Path) -> None:
    spec = spec_of(waves, loss_tolerance=1.0)

    theirs = ReferenceLoop(spec, waves).run(tmp_path)
    events = list(Trainer(spec, waves, tmp_path, save_states=False).run())

    updates = [event for event in events if isinstance(event, MaskUpdate)]
    assert {update.move for update in updates} > {Move.SHRINK}
    assert [update.sparsity for update in updates] == theirs.sparsities
    few = len(updates)  # The published program goes on measuring after the freeze.
    assert [update.validation_loss for update in updates] == pytest.approx(theirs.decision_losses[:few], rel=1e-4)
    ends = [event for event in events if isinstance(event, EpochEnd)]
    assert [end.validation_loss for end in ends] == pytest.approx(theirs.validation_losses, rel=1e-4)
    (finished,) = (event for event in events if isinstance(event, Finished))
    assert finished.result.metrics.mse == pytest.approx(theirs.test_losses[finished.result.epoch - 1], rel=1e-4)


def test_dense_training_touches_no_mask(waves: Table, tmp_path: Path) -> None:
    loop = ReferenceLoop(spec_of(waves, "dlinear", "dense"), waves)

    trained = loop.run(tmp_path)

    assert (trained.decision_losses, trained.sparsities, loop.masks.sparsity) == ([], [], 0)


def test_it_knows_no_other_method(waves: Table) -> None:
    spec = spec_of(waves).model_copy(
        update={"method": Spec.model_validate({"data": {"horizon": 1}, "method": "rigl"}).method}
    )
    with pytest.raises(ValueError, match="not rigl"):
        ReferenceLoop(spec, waves)
