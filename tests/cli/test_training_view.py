from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from cli.training_view import TrainingView
from pals_client import Event


def event(kind: Any, level: Any = "info", message: str = "", **data: Any) -> Event:
    return Event(id=1, created_at="", attempt=1, type=kind, level=level, message=message, data=data)


PROGRESS = event(
    "progress",
    epoch=2,
    epochs=5,
    step=60,
    total_steps=225,
    train_loss=0.01234,
    sparsity=0.512,
    move="shrink",
    estimated_remaining_seconds=83.4,
)
EPOCH = event("epoch", epoch=2, train_loss=0.02, validation_loss=0.01, sparsity=0.5, masks_frozen=False)
LAST_EPOCH = event("epoch", epoch=5, train_loss=0.02, validation_loss=0.01, sparsity=0.75, masks_frozen=True)
WARNING = event("message", "warning", "no epoch reached min_sparsity [0.2]")


def shown(*events: Event, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120, soft_wrap=not terminal, color_system=None)
    with TrainingView(console) as view:
        for one in events:
            view.hear(one)
    return file.getvalue()


def test_a_terminal_gets_a_bar_with_step_loss_sparsity_move_and_time_left() -> None:
    said = shown(PROGRESS, terminal=True)

    for part in ("epoch 2/5", "step 60/225", "loss 0.0123", "sparsity 51.2%", "shrink", "1:23 left"):
        assert part in said


def test_elsewhere_each_epoch_is_one_plain_line() -> None:
    said = shown(PROGRESS, EPOCH, PROGRESS, LAST_EPOCH, terminal=False)

    assert said.splitlines() == [
        "  epoch 2: train loss 0.0200, validation loss 0.0100, sparsity 50.0%",
        "  epoch 5: train loss 0.0200, validation loss 0.0100, sparsity 75.0%, masks frozen",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_messages_are_passed_on_word_for_word(terminal: bool) -> None:
    said = shown(event("message", message="training on cpu with 2 threads"), WARNING, terminal=terminal)

    assert "  training on cpu with 2 threads\n" in said
    assert "  warning: no epoch reached min_sparsity [0.2]\n" in said


def test_progress_before_the_first_update_and_estimate_is_shown_too() -> None:
    early = event("progress", **{**PROGRESS["data"], "move": None, "estimated_remaining_seconds": None})

    assert "step 60/225" in shown(early, terminal=True)
