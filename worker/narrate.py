"""Turns what a training says into what the job store keeps: events, points, progress."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from jobstore.events import EventLevel, EventType, NewEvent
from jobstore.metrics import Point
from pals_core.training.arithmetic import Products
from pals_core.training.events import EpochEnd, MaskUpdate, Message, Progress, Started


class Narrator:
    """Collects one attempt's events until the supervisor takes them for a report.

    A resumed training does some steps again. What `told` says of them, word for word, is not told again; what now
    ends otherwise is.
    """

    def __init__(self) -> None:
        self.told: Mapping[tuple[str, int], dict[str, Any]] = {}
        self._events: list[NewEvent] = []
        self._points: list[Point] = []
        self._progress_due = False
        self._total_steps = 0
        self._epochs = 0
        self._epoch = 0
        self._step = 0
        self._first_step = 0
        self._began = time.monotonic()
        self._current: dict[str, Any] = {"train_loss": None, "validation_loss": None, "sparsity": None, "move": None}

    @property
    def waiting(self) -> bool:
        """True when something was heard that no report has taken yet."""
        return bool(self._events or self._points or self._progress_due)

    def hear(self, line: BaseModel) -> None:
        """Take in one event of the training."""
        if isinstance(line, Started):
            self._start(line)
        elif isinstance(line, Progress):
            self._advance(line)
        elif isinstance(line, MaskUpdate):
            self._update(line)
        elif isinstance(line, EpochEnd):
            self._end_epoch(line)
        elif isinstance(line, Message):
            self.note(line.message, EventLevel(line.level))

    def note(self, message: str, level: EventLevel) -> None:
        """Take in something to tell that is not the training's."""
        self._events.append(NewEvent(EventType.MESSAGE, message, level=level))

    def take(self) -> tuple[list[NewEvent], list[Point]]:
        """The events and points since the last call, a progress event last when steps were made."""
        events, points = self._events, self._points
        if self._progress_due:
            loss = self._current["train_loss"]
            text = (
                f"step {self._step} of {self._total_steps}: loss {loss:.4g}, sparsity {self._current['sparsity']:.3f}"
            )
            events.append(NewEvent(EventType.PROGRESS, text, {**self.progress(), **self._current}))
        self._events, self._points, self._progress_due = [], [], False
        return events, points

    def progress(self) -> dict[str, Any]:
        """Where the training stands; the remaining time assumes that every planned epoch runs."""
        elapsed = time.monotonic() - self._began
        left, done = self._total_steps - self._step, self._step - self._first_step
        return {
            "percentage": round(100 * self._step / self._total_steps, 1) if self._total_steps else 0.0,
            "epoch": self._epoch,
            "epochs": self._epochs,
            "step": self._step,
            "total_steps": self._total_steps,
            "estimated_remaining_seconds": round(elapsed / done * left, 1) if done else None,
            "updated_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }

    def current(self) -> dict[str, Any]:
        """The last values of what a watcher wants to see."""
        return dict(self._current)

    def _point(self, name: str, step: int, value: float) -> None:
        if math.isfinite(value):
            self._points.append(Point(name, step, value))

    def _start(self, line: Started) -> None:
        self._began = time.monotonic()
        self._total_steps = line.total_steps
        self._epochs = line.epochs
        self._current["sparsity"] = line.sparsity
        if line.resumed_step is None:
            self._point("sparsity", 0, line.sparsity)
        else:
            self._step = self._first_step = line.resumed_step
            self._epoch = line.resumed_step // line.steps_per_epoch
        where = "" if line.resumed_step is None else f", going on after step {line.resumed_step}"
        whose = "" if line.products is Products.TORCH else f" with products by {line.products}"
        text = (
            f"training on {line.device} with {line.threads} threads in {line.precision}{whose}{where}: "
            f"{line.total_steps} steps at most, {line.maskable_parameters:,} of {line.total_parameters:,} "
            "parameters can be pruned"
        )
        self._events.append(NewEvent(EventType.MESSAGE, text, line.model_dump(mode="json", exclude={"type"})))

    def _advance(self, line: Progress) -> None:
        self._step, self._epoch = line.step, line.epoch
        first = line.step - len(line.train_losses) + 1
        for offset, loss in enumerate(line.train_losses):
            self._point("train_loss", first + offset, loss)
        if line.train_losses and math.isfinite(line.train_losses[-1]):
            self._current["train_loss"] = line.train_losses[-1]
            self._progress_due = True
        self._current["sparsity"] = line.sparsity

    def _update(self, line: MaskUpdate) -> None:
        self._step, self._epoch = line.step, line.epoch
        self._current |= {"sparsity": line.sparsity, "move": line.move}
        self._point("sparsity", line.step, line.sparsity)
        if line.validation_loss is not None:
            self._point("decision_loss", line.step, line.validation_loss)
        self._point("prune_rate", line.step, line.prune_rate)
        text = (
            f"step {line.step}: {line.move}, sparsity {line.sparsity_before:.3f} to {line.sparsity:.3f} "
            f"({line.pruned:,} pruned, {line.grown:,} grown)"
        )
        self._tell(EventType.MASK_UPDATE, text, line)

    def _end_epoch(self, line: EpochEnd) -> None:
        self._step, self._epoch = line.step, line.epoch
        self._current |= {"validation_loss": line.validation_loss, "sparsity": line.sparsity}
        self._point("validation_loss", line.step, line.validation_loss)
        self._point("learning_rate", line.step, line.learning_rate)
        text = (
            f"epoch {line.epoch}: train loss {line.train_loss:.4g}, validation loss {line.validation_loss:.4g}, "
            f"sparsity {line.sparsity:.3f}"
        )
        self._tell(EventType.EPOCH, text, line)

    def _tell(self, event: EventType, text: str, line: MaskUpdate | EpochEnd) -> None:
        data = line.model_dump(mode="json", exclude={"type"})
        if self.told.get((event, line.step)) != data:
            self._events.append(NewEvent(event, text, data))
