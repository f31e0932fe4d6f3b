"""What a training says becomes events, points and progress."""

from __future__ import annotations

import math

import pytest

from jobstore.events import EventLevel, EventType
from jobstore.metrics import Point
from pals_core.sparsity.decision import Move
from pals_core.training.arithmetic import Products
from pals_core.training.events import EpochEnd, MaskUpdate, Message, Progress
from tests.worker.first_words import STARTED
from worker.narrate import Narrator


@pytest.mark.parametrize(
    ("products", "words"),
    [
        (Products.TORCH, "training on cpu with 1 threads in fp32: 20 steps at most"),
        (Products.ONEDNN, "training on cpu with 1 threads in fp32 with products by onednn: 20 steps at most"),
    ],
)
def test_a_training_says_first_what_it_computes_with(products: Products, words: str) -> None:
    narrator = Narrator()
    narrator.hear(STARTED.model_copy(update={"products": products}))
    [started], _ = narrator.take()
    assert started.message.startswith(words)
    assert started.data["products"] == products


def test_losses_become_one_point_a_step_and_one_progress_event_a_report() -> None:
    narrator = Narrator()
    narrator.hear(STARTED)
    narrator.take()
    narrator.hear(Progress(step=3, epoch=1, train_losses=(3.0, 2.0, 1.0), sparsity=0.25))
    narrator.hear(Progress(step=5, epoch=1, train_losses=(0.5, 0.25), sparsity=0.25))
    events, points = narrator.take()
    assert points == [
        Point("train_loss", step, value) for step, value in enumerate((3.0, 2.0, 1.0, 0.5, 0.25), start=1)
    ]
    assert [event.type for event in events] == [EventType.PROGRESS]
    assert events[0].data["step"] == 5
    assert events[0].data["percentage"] == 25.0
    assert events[0].data["train_loss"] == 0.25
    assert narrator.take() == ([], [])
    assert not narrator.waiting


def test_an_update_without_a_decision_loss_leaves_no_point_of_it() -> None:
    narrator = Narrator()
    update = MaskUpdate(
        step=5,
        epoch=1,
        move=Move.STABLE,
        validation_loss=None,
        best_loss=None,
        best_sparsity=None,
        prune_rate=0.3,
        sparsity_before=0.8,
        sparsity=0.8,
        pruned=5,
        grown=5,
    )
    narrator.hear(update)
    _, points = narrator.take()
    assert [point.name for point in points] == ["sparsity", "prune_rate"]


def test_an_update_tells_its_move_and_leaves_its_points() -> None:
    narrator = Narrator()
    narrator.hear(STARTED)
    narrator.take()
    narrator.hear(
        MaskUpdate(
            step=5,
            epoch=1,
            move=Move.SHRINK,
            validation_loss=0.7,
            best_loss=None,
            best_sparsity=None,
            prune_rate=0.5,
            sparsity_before=0.0,
            sparsity=0.05,
            pruned=55,
            grown=50,
        )
    )
    events, points = narrator.take()
    assert [event.type for event in events] == [EventType.MASK_UPDATE]
    assert events[0].data["best_loss"] is None
    assert set(points) == {Point("sparsity", 5, 0.05), Point("decision_loss", 5, 0.7), Point("prune_rate", 5, 0.5)}
    assert narrator.current()["move"] == "shrink"


def test_a_value_that_is_no_number_is_not_a_point() -> None:
    narrator = Narrator()
    narrator.hear(STARTED)
    narrator.take()
    narrator.hear(Progress(step=2, epoch=1, train_losses=(math.nan, math.inf), sparsity=0.0))
    assert narrator.take() == ([], [])


def test_an_epoch_and_a_warning_become_events_of_their_level() -> None:
    narrator = Narrator()
    narrator.hear(STARTED)
    narrator.take()
    narrator.hear(
        EpochEnd(
            epoch=1,
            step=10,
            train_loss=1.0,
            validation_loss=0.9,
            sparsity=0.1,
            learning_rate=1e-4,
            masks_frozen=False,
            is_best=True,
        )
    )
    narrator.hear(Message(level="warning", message="look out"))
    events, points = narrator.take()
    assert [(event.type, event.level) for event in events] == [
        (EventType.EPOCH, EventLevel.INFO),
        (EventType.MESSAGE, EventLevel.WARNING),
    ]
    assert {point.name for point in points} == {"validation_loss", "learning_rate"}
    assert narrator.current()["validation_loss"] == 0.9


def test_a_resumed_training_counts_its_time_from_where_it_went_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("worker.narrate.time.monotonic", lambda: clock[0])
    narrator = Narrator()
    narrator.hear(STARTED.model_copy(update={"resumed_step": 10}))
    assert narrator.progress()["step"] == 10
    assert narrator.progress()["epoch"] == 1
    assert narrator.progress()["estimated_remaining_seconds"] is None
    [started], points = narrator.take()
    assert "going on after step 10" in started.message
    assert points == []
    clock[0] += 4
    narrator.hear(Progress(step=12, epoch=2, train_losses=(1.0, 1.0), sparsity=0.5))
    assert narrator.progress()["estimated_remaining_seconds"] == 16.0


def test_what_was_told_of_steps_done_again_is_told_only_where_it_ends_otherwise() -> None:
    def epoch(step: int, train_loss: float) -> EpochEnd:
        return EpochEnd(
            epoch=step // 10,
            step=step,
            train_loss=train_loss,
            validation_loss=0.9,
            sparsity=0.1,
            learning_rate=1e-4,
            masks_frozen=False,
            is_best=True,
        )

    before, after = Narrator(), Narrator()
    for step in (10, 20):
        before.hear(epoch(step, 0.3))
    log = {(event.type, event.data["step"]): event.data for event in before.take()[0]}
    after.told = log
    for step, loss in ((10, 0.3), (20, 0.31), (30, 0.3)):
        after.hear(epoch(step, loss))
    events, points = after.take()
    assert [(event.data["step"], event.data["train_loss"]) for event in events] == [(20, 0.31), (30, 0.3)]
    assert [point.step for point in points if point.name == "validation_loss"] == [10, 20, 30]
