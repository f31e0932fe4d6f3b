"""A training that is stopped and resumed ends with the bytes of one that was not."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pals_core.checkpoint.container import STATE_KEY
from pals_core.checkpoint.tensor_file import open_tensors, unfinished, write_tensors
from pals_core.data.table import Table
from pals_core.errors import InvalidCheckpoint
from pals_core.spec import METHOD_SPECS, MODEL_SPECS, FrozenSpec, Precision, Spec
from pals_core.training import loop, state_files
from pals_core.training.arithmetic import Arithmetic
from pals_core.training.events import (
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
from pals_core.training.surroundings import Surroundings
from pals_core.training.trainer import Trainer

MakeSpec = Callable[..., Spec]

SMALL = {"d_model": 8, "d_ff": 8, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.2}
SMALL |= {"patch_len": 4, "stride": 2}
EPOCHS, STEPS_PER_EPOCH = 3, 3


def name_of(spec: type[FrozenSpec]) -> str:
    return str(spec.model_fields["name"].default)


@pytest.fixture
def small_spec(make_spec: MakeSpec) -> Callable[..., Spec]:
    """A training of three epochs of three steps, with a mask update at every step until the masks freeze."""

    def build(model: str = "dlinear", method: str | dict[str, Any] = "pals", **training: Any) -> Spec:
        fields = next(spec for spec in MODEL_SPECS if name_of(spec) == model).model_fields
        sizes = {name: value for name, value in SMALL.items() if name in fields}
        asked = {"name": method} if isinstance(method, str) else method
        if asked["name"] not in ("dense", "static"):
            asked = {"update_interval": 1} | asked
        recipe = {"epochs": EPOCHS, "batch_size": 20, "learning_rate": 0.01} | training
        return make_spec(model={"name": model} | sizes, method=asked, training=recipe)

    return build


def told(event: TrainingEvent) -> TrainingEvent:
    """An event without the folder it happened in."""
    if not isinstance(event, CheckpointSaved):
        return event
    evaluation = None if event.evaluation_path is None else Path(event.evaluation_path).name
    return event.model_copy(update={"path": Path(event.path).name, "evaluation_path": evaluation})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def interrupted(
    spec: Spec, table: Table, folders: Iterator[Path], choose: random.Random, latest_stop: int
) -> tuple[list[TrainingEvent], Path, int]:
    """Train, stopping at random; returns the events without those of steps done twice, the folder, and the stops."""
    events: list[TrainingEvent] = []
    state: StateSaved | None = None
    for stops in range(100):
        folder = next(folders)
        interval = choose.choice([0.0, None])
        trainer = Trainer(spec, table, folder, resume_from=None if state is None else Path(state.path))
        trainer.state_interval_seconds = interval
        stop_after = choose.randint(1, latest_stop)
        heard: list[TrainingEvent] = []
        for count, event in enumerate(trainer.run(), start=1):
            if not isinstance(event, Started):
                heard.append(told(event))
            if isinstance(event, StateSaved):
                kept = folder.with_name(f"kept-{event.step}-{stops}.safetensors")
                shutil.copy(event.path, kept)
                state = event.model_copy(update={"path": str(kept)})
                events += heard
                heard = []
            if isinstance(event, Finished):
                return events + heard, folder, stops
            if count == stop_after and stops < 4:
                break
    raise AssertionError("the training never finished")


def without_timing(events: list[TrainingEvent]) -> list[TrainingEvent]:
    """Losses come in portions that depend on the clock, and states on when they were due."""
    return [event for event in events if not isinstance(event, Started | Progress | StateSaved)]


@pytest.mark.parametrize(
    ("model", "method", "precision"),
    [
        *[(name_of(model), name_of(method), "fp32") for model in MODEL_SPECS for method in METHOD_SPECS],
        *[(name_of(model), "pals", "bf16") for model in MODEL_SPECS],
    ],
)
def test_stopped_anywhere_and_resumed_it_ends_with_the_same_bytes(
    short: Table, small_spec: Callable[..., Spec], tmp_path: Path, model: str, method: str, precision: str
) -> None:
    spec = small_spec(model, method, precision=precision)
    straight = tmp_path / "straight"
    straight.mkdir()
    expected = list(Trainer(spec, short, straight).run())

    def fresh_folders() -> Iterator[Path]:
        number = 0
        while True:
            number += 1
            folder = tmp_path / f"attempt-{number}"
            folder.mkdir()
            yield folder

    events, folder, stops = interrupted(
        spec, short, fresh_folders(), random.Random(f"{model} {method}"), len(expected) - 1
    )
    assert stops
    assert files(folder) == files(straight)
    assert without_timing(events) == without_timing([told(event) for event in expected])


@pytest.mark.parametrize(
    ("method", "training"),
    [
        pytest.param({"name": "granet", "growth": "random"}, {}, id="random growth"),
        pytest.param({"name": "rigl", "growth": "momentum"}, {}, id="momentum growth"),
        pytest.param(
            "pals",
            {"optimizer": "adamw", "schedule": "cosine", "warmup_steps": 4, "gradient_clip": 0.1},
            id="another recipe",
        ),
        pytest.param("dense", {"patience": 1, "learning_rate": 0.9, "epochs": 6}, id="stopped early"),
    ],
)
def test_resumed_in_the_same_folder_nothing_is_left_over(
    short: Table,
    small_spec: Callable[..., Spec],
    tmp_path: Path,
    method: str | dict[str, Any],
    training: dict[str, Any],
) -> None:
    spec = small_spec("dlinear", method, **training)
    straight, folder = tmp_path / "straight", tmp_path / "same"
    straight.mkdir()
    folder.mkdir()
    latest_stop = len(list(Trainer(spec, short, straight).run())) - 1

    def same_folder() -> Iterator[Path]:
        while True:
            yield folder

    for seed in range(3):
        events, _, stops = interrupted(spec, short, same_folder(), random.Random(seed), latest_stop)
        assert stops
        assert files(folder) == files(straight)
        finished = events[-1]
        assert isinstance(finished, Finished)


def states_of(spec: Spec, table: Table, folder: Path, interval: float | None) -> list[StateSaved]:
    """The states of a whole training; each one's file is copied away as soon as it is told."""
    states = []
    for event in Trainer(spec, table, folder, state_interval_seconds=interval).run():
        if isinstance(event, StateSaved):
            kept = folder.with_name(Path(event.path).name)
            shutil.copy(event.path, kept)
            states.append(event.model_copy(update={"path": str(kept)}))
            assert len(list(folder.glob("state-*"))) == min(2, len(states))
            assert Path(event.path) in folder.glob("state-*")
    return states


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "training").mkdir()
    return tmp_path / "training"


def test_states_that_were_being_written_when_a_training_was_killed_go(
    short: Table, small_spec: Callable[..., Spec], folder: Path
) -> None:
    left = unfinished(folder / "state-000000002.safetensors")
    left.mkdir()
    (left / ".tmp1LhmZ7").write_bytes(b"half a state")

    list(Trainer(small_spec(), short, folder).run())

    assert {path.name.split("-")[0] for path in folder.iterdir()} == {"epoch"}


@pytest.mark.parametrize(
    ("apart", "interval", "steps"),
    [
        (math.inf, None, [3, 6, 9]),
        (math.inf, 3600.0, []),
        (0.0, 3600.0, [3, 6, 9]),
        (math.inf, 0.0, list(range(1, 10))),
    ],
)
def test_a_state_is_saved_when_due_and_at_the_end_of_epochs_that_are_not_too_short(
    short: Table,
    small_spec: Callable[..., Spec],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    apart: float,
    interval: float | None,
    steps: list[int],
) -> None:
    monkeypatch.setattr(state_files, "EPOCHS_APART", apart)
    assert [state.step for state in states_of(small_spec(), short, folder, interval)] == steps
    assert {path.name.split("-")[0] for path in folder.iterdir()} == {"epoch"}


def test_the_last_checkpoint_before_a_stop_goes_when_the_next_one_comes(
    short: Table, small_spec: Callable[..., Spec], folder: Path
) -> None:
    spec = small_spec("dlinear", "dense", learning_rate=0.9, schedule="constant", epochs=4)
    state = None
    for event in Trainer(spec, short, folder, state_interval_seconds=0.0).run():
        if isinstance(event, StateSaved) and event.step == 10:
            state = Path(event.path)
            break
    assert state is not None
    best_and_last = {"epoch-002.pals.safetensors", "epoch-003.pals.safetensors"}
    assert best_and_last == {path.name for path in folder.glob("epoch-*")}
    list(Trainer(spec, short, folder, resume_from=state).run())
    assert set(files(folder)) == {"epoch-004.pals.safetensors", "epoch-004.evaluation.json"}


def test_a_state_holds_the_best_checkpoint_unless_it_is_of_the_network_in_it(
    short: Table, small_spec: Callable[..., Spec], folder: Path, tmp_path: Path
) -> None:
    spec = small_spec("dlinear", "dense", learning_rate=0.9, schedule="constant", epochs=4)
    best, held, state, text, tensors = 0, {}, tmp_path / "state.safetensors", "", {}
    for event in Trainer(spec, short, folder, state_interval_seconds=0.0).run():
        if isinstance(event, EpochEnd) and event.is_best:
            best = event.epoch
        if isinstance(event, StateSaved):
            with open_tensors(Path(event.path), STATE_KEY) as file:
                held[event.step] = best, "best_checkpoint" in file.entries
                if event.step == 10:
                    text, tensors = file.text, file.read_all()
    steps = range(1, 4 * STEPS_PER_EPOCH + 1)
    assert [step for step, (_, holds) in held.items() if holds] == [
        step for step in steps if held[step][0] and step != STEPS_PER_EPOCH * held[step][0]
    ]
    assert {best for best, _ in held.values()} == {0, 1, 2, 4}, "the third epoch is not the best, the others are"

    del tensors["best_checkpoint"]
    write_tensors(state, STATE_KEY, text, tensors)
    with pytest.raises(InvalidCheckpoint, match="lacks the best checkpoint so far, that of epoch 2"):
        next(Trainer(spec, short, tmp_path, resume_from=state).run())


def test_losses_told_before_a_state_are_not_told_again(
    short: Table, small_spec: Callable[..., Spec], folder: Path
) -> None:
    state = states_of(small_spec(), short, folder, 0.0)[4]
    resumed = list(Trainer(small_spec(), short, folder, resume_from=Path(state.path)).run())
    started, losses = resumed[0], [event for event in resumed if isinstance(event, Progress)]
    assert isinstance(started, Started)
    assert started.resumed_step == 5
    assert losses[0].step - len(losses[0].train_losses) == 5
    assert [event.epoch for event in resumed if isinstance(event, EpochEnd)] == [2, 3]
    assert all(event.step > 5 for event in resumed if isinstance(event, MaskUpdate))


def test_after_the_last_epoch_only_the_test_is_left(
    short: Table, small_spec: Callable[..., Spec], folder: Path, tmp_path: Path
) -> None:
    state = states_of(small_spec(), short, folder, None)[-1]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    resumed = list(Trainer(small_spec(), short, elsewhere, resume_from=Path(state.path)).run())
    assert [event.type for event in resumed] == ["started", "checkpoint", "finished"]
    assert files(elsewhere) == files(folder)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this process look like another host."""
    here = loop.surroundings_of

    def move(**changes: Any) -> None:
        def there(device: torch.device, arithmetic: Arithmetic, micro_batches: int) -> Surroundings:
            return here(device, arithmetic, micro_batches).model_copy(update=changes)

        monkeypatch.setattr(loop, "surroundings_of", there)

    return move


def test_other_surroundings_are_warned_of_and_those_of_the_state_are_not(
    short: Table, small_spec: Callable[..., Spec], folder: Path, elsewhere: Callable[..., None]
) -> None:
    state = Path(states_of(small_spec(), short, folder, None)[0].path)

    def warnings() -> list[str]:
        run = Trainer(small_spec(), short, folder, resume_from=state).run()
        return [event.message for event in run if isinstance(event, Message) and event.level == "warning"]

    assert warnings() == []
    elsewhere(threads=64, processor="another", precision=Precision.BF16, compiled=True, torch="9.9", pals="9.8")
    threads, processor, precision, compiled, program, version = warnings()
    assert "threads 64 after threads 1" in threads
    assert "processor another" in processor
    assert "precision bf16 after precision fp32" in precision
    assert "compiled True after compiled False" in compiled
    assert "pals 9.8" in program
    assert "torch 9.9" in version


def test_once_resumed_elsewhere_a_training_is_not_reproducible_any_more(
    short: Table, small_spec: Callable[..., Spec], folder: Path, elsewhere: Callable[..., None]
) -> None:
    def run(resume_from: Path | None) -> tuple[bool, Path]:
        """Whether it is said to be reproducible, and its next state."""
        for event in Trainer(small_spec(), short, folder, resume_from=resume_from, state_interval_seconds=0).run():
            if isinstance(event, Started):
                reproducible = event.reproducible
            if isinstance(event, StateSaved):
                kept = shutil.copy(event.path, folder.with_name(Path(event.path).name))
                return reproducible, Path(kept)
        raise AssertionError("no state was saved")

    first, state = run(None)
    same, state = run(state)
    elsewhere(processor="another")
    other, state = run(state)
    other_again, _ = run(state)
    assert (first, same, other, other_again) == (True, True, False, False)


def test_resumed_in_smaller_parts_a_training_goes_on_and_is_not_reproducible(
    short: Table, small_spec: Callable[..., Spec], folder: Path
) -> None:
    state = Path(states_of(small_spec(), short, folder, None)[0].path)
    started, *events = Trainer(small_spec(), short, folder, resume_from=state, micro_batches=2).run()
    assert isinstance(started, Started)
    assert not started.reproducible
    [warning] = [event.message for event in events if isinstance(event, Message) and event.level == "warning"]
    assert "micro_batches 2 after micro_batches 1" in warning
    assert isinstance(events[-1], Finished)
    fresh = next(Trainer(small_spec(), short, folder, micro_batches=2).run())
    assert isinstance(fresh, Started)
    assert not fresh.reproducible


def test_without_threads_of_its_own_a_resumed_training_takes_those_of_its_state(
    short: Table, small_spec: Callable[..., Spec], folder: Path
) -> None:
    before = torch.get_num_threads()
    try:
        run = Trainer(small_spec(), short, folder, threads=2, state_interval_seconds=0).run()
        state = Path(next(event.path for event in run if isinstance(event, StateSaved)))
        torch.set_num_threads(1)
        started = next(Trainer(small_spec(), short, folder, resume_from=state).run())
        assert isinstance(started, Started)
        assert (started.threads, started.reproducible) == (2, True)
    finally:
        torch.set_num_threads(before)


def test_a_state_that_was_asked_for_comes_after_the_step_in_progress(
    short: Table, small_spec: Callable[..., Spec], folder: Path
) -> None:
    training = Trainer(small_spec(), short, folder)
    steps = []
    for event in training.run():
        if isinstance(event, MaskUpdate) and event.step == 4:
            training.request_state()
        if isinstance(event, StateSaved):
            steps.append(event.step)
    assert steps == [3, 4, 6, 9]
