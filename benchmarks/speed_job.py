"""What a timed run says of a whole job: arithmetic on seconds and counts.

A run has the steps of a few epochs or of a part of one, the job all of them. The seconds of the job are those of each
part, the median of its calls, times how often the job has it. What the first step took longer than the others, and
what no part claims, are kept apart.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.speed_cases import JobCounts
from pals_core.training.state_files import EPOCHS_APART

STEP_PARTS = ("data", "zero gradients", "forward", "backward", "optimiser")
UPDATE_PARTS = ("decision", "mask update")
EPOCH_PARTS = ("evaluation", "checkpoint")
PUBLISHED_EXTRAS = ("late decisions", "test evaluation of each epoch")


@dataclass(frozen=True)
class Run:
    """A timed run: its steps, epochs and seconds, and the seconds of each call by part."""

    steps: int
    epochs: int
    seconds: float
    calls: Mapping[str, list[float]]

    @classmethod
    def of(cls, measured: Mapping[str, Any]) -> Run:
        return cls(measured["steps"], measured["epochs"], measured["seconds"], measured["calls"])

    def median(self, part: str) -> float:
        """Return the median seconds of a part's calls; 0 where there is none."""
        calls = self.calls.get(part)
        return statistics.median(calls) if calls else 0.0

    @property
    def step(self) -> dict[str, float]:
        """Seconds of one step by part; the masks' and the rest's are means, for not all of their calls are alike."""
        claimed = sum(sum(calls) for calls in self.calls.values())
        return {part: self.median(part) for part in STEP_PARTS} | {
            "masks": sum(self.calls.get("masks", ())) / self.steps,
            "rest": max(0.0, self.seconds - claimed) / self.steps,
        }

    @property
    def update(self) -> dict[str, float]:
        """Seconds of one mask update by part."""
        return {part: self.median(part) for part in UPDATE_PARTS}

    @property
    def epoch_end(self) -> dict[str, float]:
        """Seconds at the end of an epoch by part; a checkpoint that is not written every time counts as its share."""
        ends = {part: self.median(part) for part in EPOCH_PARTS}
        ends["checkpoint"] = sum(self.calls.get("checkpoint", ())) / self.epochs
        return ends

    @property
    def warm_up(self) -> float:
        """What the first step took longer than the median one."""
        return sum(max(0.0, self.calls[part][0] - self.median(part)) for part in ("forward", "backward", "optimiser"))


def whole_job(run: Run, counts: JobCounts, *, published: bool) -> dict[str, float]:
    """Return the seconds of a whole job by part.

    `published` adds what the published program does beyond the work that both loops have in common: it decides after
    the masks are frozen as well, and evaluates the test part at every epoch's end instead of once.
    """
    parts = {part: seconds * counts.steps for part, seconds in run.step.items()}
    parts |= {part: seconds * counts.updates for part, seconds in run.update.items()}
    parts |= {part: seconds * counts.epochs for part, seconds in run.epoch_end.items()}
    parts["state"] = run.median("state") * (counts.epochs // _epochs_a_state(sum(parts.values()) / counts.epochs))
    parts["test evaluation"] = run.median("test evaluation")
    parts["result"] = sum(run.calls.get("result", ()))
    parts["warm-up"] = run.warm_up
    if published:
        late, evaluations = PUBLISHED_EXTRAS
        parts[late] = run.median("decision") * counts.late_decisions
        parts[evaluations] = run.median("test evaluation") * (counts.epochs - 1)
    return parts


def updating_epoch(run: Run, counts: JobCounts, interval: int) -> float:
    """Return the seconds of one epoch in which masks are still updated, its validation included."""
    steps = counts.steps / counts.epochs
    updates = steps / interval if run.calls.get("mask update") else 0.0
    seconds = sum(run.step.values()) * steps + sum(run.update.values()) * updates + sum(run.epoch_end.values())
    return seconds + run.median("state") / _epochs_a_state(seconds)


def _epochs_a_state(seconds: float) -> int:
    """After how many epochs of so many seconds each the service writes a state."""
    return max(1, math.ceil(EPOCHS_APART / seconds))


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest over the rounds."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.lowest)} to {_short(self.highest)})"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
