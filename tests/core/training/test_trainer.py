from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pals_core.checkpoint.file import read_checkpoint
from pals_core.data.table import Table
from pals_core.data.windows import Batch
from pals_core.errors import ErrorCode, InvalidSpec, TrainingFailed
from pals_core.sparsity.decision import Move
from pals_core.spec import Spec
from pals_core.training import loop, progress
from pals_core.training.epoch_checkpoints import EpochCheckpoints
from pals_core.training.events import (
    TRAINING_EVENT,
    CheckpointSaved,
    EpochEnd,
    Finished,
    MaskUpdate,
    Message,
    Progress,
    Started,
    StateSaved,
    TrainingEvent,
)
from pals_core.training.forward import ForwardPass
from pals_core.training.gradient import backpropagate
from pals_core.training.trainer import Trainer

MakeSpec = Callable[..., Spec]


def test_events_come_in_order(trained: list[TrainingEvent]) -> None:
    assert isinstance(trained[0], Started)
    assert isinstance(trained[-1], Finished)
    assert [event.type for event in trained if event.type in ("epoch", "checkpoint", "state_saved", "finished")] == [
        *("epoch", "checkpoint", "state_saved") * 3,
        "checkpoint",
        "finished",
    ]
    steps = [event.step for event in trained if not isinstance(event, Started | Finished | Message)]
    assert steps[:-1] == sorted(steps[:-1])


@pytest.mark.parametrize("pointer", ["/data/series", "/method/update_interval"])
def test_a_spec_with_open_fields_is_refused(pointer: str, series: Table, make_spec: MakeSpec, tmp_path: Path) -> None:
    fields = make_spec().model_dump()
    _, section, name = pointer.split("/")
    fields[section][name] = None
    with pytest.raises(InvalidSpec, match="resolve the spec") as caught:
        next(Trainer(Spec.model_validate(fields), series, tmp_path).run())
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


def test_every_step_has_one_loss_told_before_later_events(trained: list[TrainingEvent]) -> None:
    started = trained[0]
    assert isinstance(started, Started)
    told = 0
    for event in trained:
        if isinstance(event, Progress):
            assert event.step == told + len(event.train_losses)
            told = event.step
        elif isinstance(event, MaskUpdate | EpochEnd):
            assert event.step == told
    assert told == started.total_steps


def test_events_survive_json(trained: list[TrainingEvent]) -> None:
    for event in trained:
        assert TRAINING_EVENT.validate_json(event.model_dump_json()) == event


def test_updates_happen_on_schedule_and_sparsity_follows_the_moves(trained: list[TrainingEvent]) -> None:
    started, updates = trained[0], [event for event in trained if isinstance(event, MaskUpdate)]
    assert isinstance(started, Started)
    assert [update.step for update in updates] == list(range(2, 2 * len(updates) + 1, 2))
    assert 2 * len(updates) < started.total_steps
    for update in updates:
        change = (update.pruned - update.grown) / started.maskable_parameters
        assert update.sparsity - update.sparsity_before == pytest.approx(change, abs=1e-9)
        assert (update.move is Move.SHRINK) == (change > 0)
    assert [update.sparsity_before for update in updates[1:]] == [update.sparsity for update in updates[:-1]]
    frozen = [event.masks_frozen for event in trained if isinstance(event, EpochEnd)]
    assert frozen[-1]
    assert not frozen[0]


def test_the_best_and_the_last_checkpoint_remain(series: Table, make_spec: MakeSpec, tmp_path: Path) -> None:
    best = last = ""
    for event in Trainer(make_spec(training={"epochs": 5}), series, tmp_path).run():
        if isinstance(event, CheckpointSaved):
            assert Path(event.path).exists()
            best = event.path if event.is_best else best
            last = event.path if event.is_last else last
            assert {best, last} <= {str(path) for path in tmp_path.iterdir()}
            assert len(list(tmp_path.glob("state-*"))) <= 2
    evaluation = best.replace(".pals.safetensors", ".evaluation.json")
    assert {str(path) for path in tmp_path.iterdir()} == {best, last, evaluation}


def test_the_result_describes_the_best_file(trained: list[TrainingEvent], best_checkpoint: Path) -> None:
    finished = trained[-1]
    assert isinstance(finished, Finished)
    result, header = finished.result, read_checkpoint(best_checkpoint).header
    assert header.metrics == result.metrics
    assert (header.epoch, header.step, header.sparsity) == (result.epoch, result.step, result.sparsity)
    assert header.validation_loss == result.validation_loss
    assert result.checkpoint_bytes == best_checkpoint.stat().st_size
    assert (header.flops_dense, header.flops_sparse) == (result.flops_dense, result.flops_sparse)
    assert result.sparsity == pytest.approx(1 - result.active_parameters / result.maskable_parameters)
    epochs = {event.epoch: event for event in trained if isinstance(event, EpochEnd)}
    sparse_enough = [epoch for epoch in epochs.values() if epoch.sparsity >= 0.2]
    assert result.reached_target
    assert result.epoch == min(sparse_enough, key=lambda epoch: epoch.validation_loss).epoch


def test_a_checkpoint_says_what_each_layer_costs(best_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(best_checkpoint)
    header = checkpoint.header
    steps_in, horizon, columns, width = 12, 4, 3, 16
    projection, query = header.layers["projection.weight"], header.layers["encoder.layers.0.attention.query.weight"]
    assert (projection.shape, projection.flops_dense) == ((columns, width), 2 * horizon * width * columns)
    assert (query.shape, query.flops_dense) == ((width, width), 2 * steps_in * width * width)
    assert query.flops_sparse == 2 * steps_in * int(checkpoint.masks["encoder.layers.0.attention.query.weight"].sum())
    attention = next(product for product in header.products if product.module == "encoder.layers.0.attention")
    assert attention.flops == 2 * (2 * steps_in * steps_in * width)
    assert header.flops_sparse < header.flops_dense


def test_equal_trainings_write_equal_bytes(
    series: Table, make_spec: MakeSpec, best_checkpoint: Path, tmp_path: Path
) -> None:
    for _ in Trainer(make_spec(), series, tmp_path).run():
        torch.rand(3)
    assert (tmp_path / best_checkpoint.name).read_bytes() == best_checkpoint.read_bytes()


def test_another_seed_gives_another_network(
    series: Table, make_spec: MakeSpec, best_checkpoint: Path, tmp_path: Path
) -> None:
    *_, finished = Trainer(make_spec(training={"seed": 4}), series, tmp_path).run()
    assert isinstance(finished, Finished)
    assert read_checkpoint(best_checkpoint).header.validation_loss != finished.result.validation_loss


def test_inactive_weights_are_zero_in_every_checkpoint(best_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(best_checkpoint)
    assert checkpoint.header.sparsity >= 0.2
    for name, mask in checkpoint.masks.items():
        assert int(mask.sum()) == checkpoint.header.layers[name].active
        assert not checkpoint.weights[name][~mask].any()


def test_a_dense_training_has_no_updates_and_any_epoch_may_be_best(
    series: Table, make_spec: MakeSpec, tmp_path: Path
) -> None:
    events = list(Trainer(make_spec(method="dense"), series, tmp_path).run())
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert not [event for event in events if isinstance(event, MaskUpdate)]
    assert finished.result.sparsity == 0
    assert finished.result.average_density == 1
    assert finished.result.flops_sparse == finished.result.flops_dense
    assert finished.result.reached_target
    assert all(event.masks_frozen for event in events if isinstance(event, EpochEnd))


def test_a_training_that_stays_too_dense_says_so(series: Table, make_spec: MakeSpec, tmp_path: Path) -> None:
    method = {"name": "pals", "update_interval": 5, "min_sparsity": 0.85, "max_sparsity": 0.9}
    events = list(Trainer(make_spec(method=method), series, tmp_path).run())
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert not finished.result.reached_target
    warnings = [event.message for event in events if isinstance(event, Message)]
    assert len(warnings) == 1
    assert "no epoch reached sparsity 0.85" in warnings[0]
    assert all(event.move is Move.SHRINK for event in events if isinstance(event, MaskUpdate))


def test_pals_without_an_update_says_that_the_network_stays_dense(
    series: Table, make_spec: MakeSpec, tmp_path: Path
) -> None:
    method = {"name": "pals", "update_interval": 1000, "min_sparsity": 0}
    events = list(Trainer(make_spec(method=method), series, tmp_path).run())
    (warning,) = (event.message for event in events if isinstance(event, Message))
    assert warning.startswith("update_interval 1000 leaves pals without an update")
    assert not [event for event in events if isinstance(event, MaskUpdate)]


@pytest.mark.parametrize("method", ["granet", "gmp", "rigl", "set", "static"])
def test_a_method_with_a_target_ends_at_it(series: Table, make_spec: MakeSpec, tmp_path: Path, method: str) -> None:
    spec = make_spec(method={"name": method, "sparsity": 0.75}, training={"epochs": 4, "patience": 1})
    events = list(Trainer(spec, series, tmp_path).run())
    finished, updates = events[-1], [event for event in events if isinstance(event, MaskUpdate)]
    assert isinstance(finished, Finished)
    assert finished.result.reached_target
    assert 0.75 <= finished.result.sparsity < 0.755
    assert bool(updates) == (method != "static")
    assert all(update.validation_loss is None and update.best_loss is None for update in updates)
    assert all(update.sparsity >= update.sparsity_before for update in updates)
    at_target = [event for event in events if isinstance(event, EpochEnd) and event.sparsity >= 0.75]
    assert finished.result.epoch == min(at_target, key=lambda epoch: epoch.validation_loss).epoch
    checkpoint = read_checkpoint(Path(next(e.path for e in reversed(events) if isinstance(e, CheckpointSaved))))
    assert checkpoint.header.sparsity == finished.result.sparsity
    assert all(not checkpoint.weights[name][~mask].any() for name, mask in checkpoint.masks.items())


def test_a_gradual_method_is_not_stopped_before_its_target(series: Table, make_spec: MakeSpec, tmp_path: Path) -> None:
    method = {"name": "gmp", "sparsity": 0.95, "final_update_fraction": 1}
    spec = make_spec(model="dlinear", method=method, training={"epochs": 5, "patience": 1, "learning_rate": 0.5})
    events = list(Trainer(spec, series, tmp_path).run())
    losses = [event.validation_loss for event in events if isinstance(event, EpochEnd)]
    assert any(later >= earlier for earlier, later in pairwise(losses[:-1]))
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.result.sparsity >= 0.95


@pytest.mark.parametrize("allocation", ["erk", "uniform"])
def test_a_sparse_start_begins_at_its_density(
    series: Table, make_spec: MakeSpec, tmp_path: Path, allocation: str
) -> None:
    method = {"name": "pals", "update_interval": 2, "initial_density": 0.4, "initial_allocation": allocation}
    started = next(Trainer(make_spec(method=method), series, tmp_path).run())
    assert isinstance(started, Started)
    assert started.sparsity == pytest.approx(0.6, abs=0.01)


def test_early_stopping_ends_the_training(series: Table, make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec(model="dlinear", training={"epochs": 30, "patience": 1, "learning_rate": 0.5})
    *_, finished = events = list(Trainer(spec, series, tmp_path).run())
    assert isinstance(finished, Finished)
    assert finished.stopped_early
    losses = [event.validation_loss for event in events if isinstance(event, EpochEnd)]
    assert len(losses) < 30
    assert losses[-1] >= min(losses[:-1])
    assert losses[:-1] == sorted(losses[:-1], reverse=True)


def test_stopping_the_iteration_stops_the_training(series: Table, make_spec: MakeSpec, tmp_path: Path) -> None:
    run = Trainer(make_spec(), series, tmp_path).run()
    for event in run:
        if isinstance(event, MaskUpdate):
            break
    run.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rows", "which"),
    [
        pytest.param(slice(195, 200), "validation", id="in the validation part"),
        pytest.param(slice(240, 260), "test", id="in the test part"),
    ],
)
def test_a_loss_beyond_numbers_is_a_failure_that_says_where(
    series: Table, make_spec: MakeSpec, tmp_path: Path, rows: slice, which: str
) -> None:
    spec = make_spec(model={"name": "dlinear"}, training={"learning_rate": 1e-4})
    huge = Table(series.times, series.values.copy(), series.columns, series.frequency)
    huge.values[rows] *= 1e38
    with pytest.raises(TrainingFailed, match=f"the {which} loss became .* at step [0-9]+") as caught:
        list(Trainer(spec, huge, tmp_path).run())
    assert caught.value.code is ErrorCode.DIVERGED


def test_a_training_loss_that_is_no_number_is_named_before_a_decision_is_measured(
    series: Table, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0

    def spoilt(forward: ForwardPass, batch: Batch, parts: int) -> Tensor:
        nonlocal steps
        steps += 1
        loss = backpropagate(forward, batch, parts)
        if steps == 3:
            for parameter in forward.model.parameters():
                parameter.grad = torch.full_like(parameter, math.nan)
        return loss

    monkeypatch.setattr(loop, "backpropagate", spoilt)
    monkeypatch.setattr(progress, "FLUSH_SECONDS", math.inf)
    spec = make_spec(method={"name": "pals", "update_interval": 5})
    with pytest.raises(TrainingFailed, match=r"the training loss became nan at step 4, at a learning rate of 0\.001"):
        list(Trainer(spec, series, tmp_path).run())


def test_a_failure_after_a_resumption_has_the_best_checkpoint_of_before(
    series: Table, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(training={"epochs": 2})
    for event in Trainer(spec, series, tmp_path).run():
        if isinstance(event, StateSaved):
            break
    folder = tmp_path / "resumed"
    folder.mkdir()
    monkeypatch.setattr(loop, "backpropagate", lambda forward, batch, parts: torch.tensor(math.nan))
    with pytest.raises(TrainingFailed) as caught:
        list(Trainer(spec, series, folder, resume_from=Path(event.path)).run())
    assert caught.value.checkpoint == folder / "epoch-001.pals.safetensors"
    assert read_checkpoint(caught.value.checkpoint).header.epoch == 1


def test_a_checkpoint_that_could_not_be_written_is_not_told_of(
    series: Table, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = EpochCheckpoints.save

    def save_once(self: EpochCheckpoints, *network: Any) -> Path:
        if list(tmp_path.glob("epoch-*")):
            raise MemoryError
        return save(self, *network)

    monkeypatch.setattr(EpochCheckpoints, "save", save_once)
    with pytest.raises(TrainingFailed) as caught:
        list(Trainer(make_spec(), series, tmp_path).run())
    assert caught.value.code is ErrorCode.OUT_OF_MEMORY
    assert caught.value.checkpoint == tmp_path / "epoch-001.pals.safetensors"


def test_a_failure_before_the_first_epochs_end_has_no_checkpoint(
    series: Table, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "backpropagate", lambda forward, batch, parts: torch.tensor(math.nan))
    with pytest.raises(TrainingFailed) as caught:
        list(Trainer(make_spec(), series, tmp_path).run())
    assert caught.value.checkpoint is None


@pytest.mark.parametrize(
    ("policy", "treatment"),
    [
        (
            "interpolate",
            "filled by linear interpolation within each part of the split, from both sides of a gap, and count in no "
            "error",
        ),
        ("ffill", "filled with the last known value within each part of the split, and count in no error"),
        ("mask", "read as the column's mean, and those of targets count in no loss or error"),
    ],
)
def test_missing_values_and_constant_columns_are_told_of_once(
    series: Table, make_spec: MakeSpec, tmp_path: Path, policy: str, treatment: str
) -> None:
    values = series.values.copy()
    values[[3, 4, 200], 0] = math.nan
    values[:182, 2] = 7.5  # the training part; what comes after changes
    table = Table(series.times, values, series.columns, series.frequency)
    spec = make_spec(table, model={"name": "dlinear"}, data={"missing": policy})

    events = list(Trainer(spec, table, tmp_path).run())

    assert [event for event in events if isinstance(event, Message)] == [
        Message(message=f"missing values are {treatment}: 'calm' 3 of 260"),
        Message(
            level="warning",
            message="nothing can be learnt of columns that never change in the training part; they are not scaled, "
            "only shifted to 0: 'noise' is 7.5",
        ),
    ]


@pytest.mark.parametrize("method", ["pals", "gmp", "rigl", "dense"])
def test_average_density_is_the_mean_over_the_steps(
    series: Table, make_spec: MakeSpec, tmp_path: Path, method: str
) -> None:
    fields = {"name": method} | ({} if method == "dense" else {"update_interval": 2})
    sparsity, sparsity_after = 0.0, {}
    steps = 0
    for event in Trainer(make_spec(method=fields), series, tmp_path).run():
        if isinstance(event, Started):
            sparsity, steps = event.sparsity, event.total_steps
        elif isinstance(event, MaskUpdate):
            sparsity_after[event.step] = event.sparsity
        elif isinstance(event, Finished):
            finished = event
    densities = []
    for step in range(1, steps + 1):
        densities.append(1 - sparsity)
        sparsity = sparsity_after.get(step, sparsity)
    assert not finished.stopped_early
    assert finished.result.average_density == pytest.approx(sum(densities) / steps, rel=1e-9)
    assert (min(densities) < max(densities)) is (method in ("pals", "gmp"))


def test_a_batch_larger_than_the_training_part_is_refused(series: Table, make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec()
    training = spec.training.model_copy(update={"batch_size": 1000})
    with pytest.raises(InvalidSpec) as caught:
        next(Trainer(spec.model_copy(update={"training": training}), series, tmp_path).run())
    assert caught.value.problems[0].pointer == "/training/batch_size"
