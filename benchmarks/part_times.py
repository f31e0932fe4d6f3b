"""How long the parts of a training take, without a line of it being written for that.

A part is a set of functions; its time is that of their outermost calls, so that a forward pass inside an evaluation
belongs to the evaluation. What no part claims is what is left of the whole. The functions are found by name when the
benchmark starts: one that is gone is an error and never a silent zero, and a loop that is rearranged, or calls them
from elsewhere, is still timed rightly.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import torch

from pals_core.data.windows import WindowSet
from pals_core.evaluation.conformal import calibrate
from pals_core.evaluation.measure import Measurement, measure
from pals_core.flops import count_flops
from pals_core.sparsity.fixed import FixedMasks
from pals_core.sparsity.masks import MaskSet
from pals_core.sparsity.registry import UPDATING
from pals_core.training.epoch_checkpoints import EpochCheckpoints
from pals_core.training.forward import ForwardPass
from pals_core.training.state_files import StateFiles
from pals_core.training.validation import mean_squared_error


class PartTimes:
    """Seconds of every call of each part; on a GPU each call waits for what it started."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.seconds: dict[str, list[float]] = {}
        self._on_gpu = torch.device(device).type == "cuda"

    def now(self) -> float:
        if self._on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def add(self, part: str, seconds: float) -> None:
        self.seconds.setdefault(part, []).append(seconds)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Time a block as one call."""
        began = self.now()
        yield
        self.add(part, self.now() - began)

    def of(self, part: str) -> list[float]:
        """Return the seconds of each call of a part, in the order of the calls."""
        return self.seconds.get(part, [])


def parts_of_the_trainer() -> dict[str, tuple[Callable[..., Any], ...]]:
    """Return the functions behind each part of pals_core's trainer."""
    methods = (*UPDATING.values(), FixedMasks)
    return {
        "data": (WindowSet.batch,),
        "zero gradients": (torch.optim.Optimizer.zero_grad,),
        "accounting": (count_flops,),
        "forward": (ForwardPass.__call__,),
        "backward": (torch.Tensor.backward,),
        "optimiser": (torch.optim.Adam.step, torch.optim.AdamW.step),
        "masks": tuple(method for name, method in vars(MaskSet).items() if name.startswith("apply")),
        "decision": tuple(method.decide for method in methods),  # type: ignore[attr-defined]
        "mask update": tuple(method.update for method in methods),  # type: ignore[attr-defined]
        "evaluation": (mean_squared_error, measure),
        "checkpoint": (EpochCheckpoints.save,),
        "state": (StateFiles.save,),
        "result": (
            EpochCheckpoints.load,
            calibrate,
            Measurement.evaluation,
            EpochCheckpoints.add_results,
            EpochCheckpoints.save_evaluation,
        ),
    }


@contextmanager
def outermost_calls_timed(times: PartTimes, parts: Mapping[str, Iterable[Callable[..., Any]]]) -> Iterator[None]:
    """Add to `times` every outermost call of the parts' functions that this thread makes inside the block."""
    part_of: dict[CodeType, str] = {}
    for part, functions in parts.items():
        for function in functions:
            part_of[inspect.unwrap(function).__code__] = part
    running: FrameType | None = None
    began = 0.0

    def watch(frame: FrameType, event: str, argument: object) -> None:  # noqa: ARG001
        nonlocal running, began
        if event == "call":
            if running is None and frame.f_code in part_of:
                running, began = frame, times.now()
        elif event == "return" and frame is running:
            times.add(part_of[frame.f_code], times.now() - began)
            running = None

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)
