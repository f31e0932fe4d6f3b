"""Training one forecaster on one table, with events as they happen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch

from pals_core.data.table import Table
from pals_core.errors import InvalidSpec, Problem, TrainingFailed
from pals_core.heap import freed_memory_kept
from pals_core.spec import DeviceChoice, Spec
from pals_core.training.device import (
    choose_device,
    seed_random_state,
    with_own_torch_state,
    with_readable_failures,
)
from pals_core.training.events import TrainingEvent
from pals_core.training.loop import TrainingLoop
from pals_core.training.state_files import StateFiles, threads_of


class Trainer:
    """Trains one forecaster. Knows nothing of jobs, queues or HTTP.

    `spec` is resolved. Checkpoints are written into `output_dir`, which is made if need be. `device` (`auto`, `cpu` or
    `cuda`) overrides the spec's; `threads` are torch's CPU threads while it trains. On the CPU, the same spec, table
    and thread count give the same files, bit for bit.

    With `save_states` a state file is written at every epoch's end. With `state_interval_seconds` it is also written
    within an epoch, after the first step at which so many have passed since the last one, and at an epoch's end only if
    the last one is at least 5 s old (or the interval, if it is shorter). `resume_from` goes on from such a file, which
    is all it needs, to the same checkpoint files as if there had been no interruption; without `threads` it takes that
    file's.

    Each batch is computed in `micro_batches` parts, one after the other: less memory, nearly the same training. Raises
    ValueError for counts below 1, an interval below 0, and a `dataset_sha256` that is none.
    """

    def __init__(
        self,
        spec: Spec,
        table: Table,
        output_dir: str | Path,
        *,
        device: str | None = None,
        threads: int | None = None,
        dataset_sha256: str | None = None,
        resume_from: str | Path | None = None,
        state_interval_seconds: float | None = None,
        save_states: bool = True,
        micro_batches: int = 1,
    ) -> None:
        for name, count in (("threads", threads), ("micro_batches", micro_batches)):
            if count is not None and count < 1:
                raise ValueError(f"{name} is {count}; it must be at least 1")
        if state_interval_seconds is not None and not state_interval_seconds >= 0:
            raise ValueError(f"state_interval_seconds is {state_interval_seconds}; it must be at least 0")
        if dataset_sha256 is not None and not re.fullmatch("[0-9a-f]{64}", dataset_sha256):
            raise ValueError("dataset_sha256 must be the 64 hexadecimal digits of a SHA-256")
        self.spec = spec
        self.table = table
        self.output_dir = Path(output_dir)
        self.device = DeviceChoice(device) if device is not None else spec.training.device
        self.threads = threads
        self.dataset_sha256 = dataset_sha256
        self.resume_from = None if resume_from is None else Path(resume_from)
        self.state_interval_seconds = state_interval_seconds
        self.save_states = save_states
        self.micro_batches = micro_batches
        self._states: StateFiles | None = None
        self._best_checkpoint: Path | None = None

    def request_state(self) -> None:
        """Ask, while an event is being looked at, for a state after the step in progress; for `save_states` alone."""
        if self._states is not None:
            self._states.asked_for = True

    def run(self) -> Iterator[TrainingEvent]:
        """Train, yielding a `Started` first and a `Finished` last; stopping the iteration stops the training.

        A checkpoint file that is neither best nor last is removed once the iteration goes on after the next one's
        event. The two newest state files are kept until the training has finished. Raises InvalidSpec, InvalidTable or
        InvalidCheckpoint (for `resume_from`) before the first event, and TrainingFailed when the loss diverges, memory
        runs out or the device is not there; its `checkpoint` is the best one so far, from before a resumption too.
        """
        device = choose_device(self.device)
        deterministic = self.spec.training.deterministic
        self._best_checkpoint = None
        try:
            with freed_memory_kept():
                yield from with_own_torch_state(with_readable_failures(self._train(device)), device, deterministic)
        except TrainingFailed as error:
            error.checkpoint = self._best_checkpoint
            raise

    def _train(self, device: torch.device) -> Iterator[TrainingEvent]:
        for section, name in (("data", "series"), ("method", "update_interval")):
            if getattr(getattr(self.spec, section), name, ...) is None:
                message = f"{name} is not set; resolve the spec against its table first"
                raise InvalidSpec(message, (Problem(message, pointer=f"/{section}/{name}"),))
        threads = self.threads
        if threads is None and self.resume_from is not None:
            threads = threads_of(self.resume_from)
        if threads is not None:
            torch.set_num_threads(threads)
        seed_random_state(self.spec.training.seed, device)
        loop = TrainingLoop(
            self.spec,
            self.table,
            self.output_dir,
            device,
            dataset_sha256=self.dataset_sha256,
            state_interval_seconds=self.state_interval_seconds,
            save_states=self.save_states,
            micro_batches=self.micro_batches,
        )
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self._states = loop.states
        try:
            yield from loop.run(self.resume_from)
        finally:
            self._best_checkpoint = loop.best_checkpoint
