"""The state files of one training: one file from which it goes on as if it had never been interrupted.

A file holds the training's state, what it belongs to, and the best checkpoint so far as that file's bytes, unless it is
of the network in the state; so no other file is needed. It is about three times as large as a checkpoint (weights and
two moments), and the best checkpoint on top.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, JsonValue, ValidationError
from torch import Tensor

from pals_core.checkpoint.container import STATE_KEY
from pals_core.checkpoint.header_part import HeaderPart
from pals_core.checkpoint.tensor_file import open_tensors, unfinished, write_tensors
from pals_core.data.table import Table
from pals_core.errors import InvalidCheckpoint, listed, pointer_of
from pals_core.spec import Spec
from pals_core.training.epoch_checkpoints import EpochCheckpoints
from pals_core.training.events import StateSaved
from pals_core.training.state import PlainState, TrainingState
from pals_core.training.surroundings import Surroundings, differences

EPOCHS_APART = 5.0  # seconds; of shorter epochs a state each costs more than doing a few again
_BEST = "best_checkpoint"


class StateHeader(HeaderPart):
    """What a state belongs to, where it was made, and the part of it that is not tensors."""

    format_version: Literal[1] = 1
    spec: Spec
    table_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Of the times and values that are read.")
    surroundings: Surroundings
    reproducible: bool = Field(description="Whether a training that goes on in these surroundings ends as if unbroken.")
    plain: PlainState


@dataclass
class StateFiles:
    """Writes `state-<step>.safetensors` into `folder` and keeps the two newest.

    Within an epoch a file is due `interval` seconds after the last one, and at an epoch's end `EPOCHS_APART` after it,
    or `interval` if that is shorter. Without an interval one is due at every epoch's end, and only there. One that was
    asked for is due at once. `reproducible` says whether the training repeats itself; resuming elsewhere ends that.
    """

    folder: Path
    spec: Spec
    table_sha256: str
    surroundings: Surroundings
    reproducible: bool
    interval: float | None

    def __post_init__(self) -> None:
        self.asked_for = False
        self._kept: list[Path] = []
        self._own: set[Path] = set()
        self._foreign: set[Path] = set()  # states of other trainings, which are left alone
        self._saved_at = time.monotonic()

    @property
    def is_due(self) -> bool:
        return self.asked_for or (self.interval is not None and self._age >= self.interval)

    @property
    def is_due_after_epoch(self) -> bool:
        return self.asked_for or self.interval is None or self._age >= min(self.interval, EPOCHS_APART)

    @property
    def _age(self) -> float:
        return time.monotonic() - self._saved_at

    def save(self, state: TrainingState, checkpoints: EpochCheckpoints) -> StateSaved:
        """Write the state; no loss of it may wait to be told."""
        header = StateHeader(
            spec=self.spec,
            table_sha256=self.table_sha256,
            surroundings=self.surroundings,
            reproducible=self.reproducible,
            plain=state.plain(),
        )
        tensors = state.tensors()
        if state.best.epoch and not state.is_best:
            tensors[_BEST] = torch.from_numpy(np.fromfile(checkpoints.path(state.best.epoch), dtype=np.uint8))
        path = self.folder / f"state-{state.step:09}.safetensors"
        write_tensors(path, STATE_KEY, header.model_dump_json(), tensors)
        self._kept = [*(kept for kept in self._kept if kept != path), path][-2:]
        self._own.add(path)
        self._foreign.discard(path)  # another training's file of the same step, which this one has replaced
        self._remove_all_but(self._kept)
        self._saved_at = time.monotonic()
        self.asked_for = False
        return StateSaved(step=state.step, path=str(path))

    def resume(self, path: Path, state: TrainingState, checkpoints: EpochCheckpoints) -> list[str]:
        """Put a freshly built training where the file left off; return what may make it end differently.

        Raises InvalidCheckpoint when the file is torn, damaged, of another version, spec or table, and
        FileNotFoundError without a file.
        """
        with open_tensors(path, STATE_KEY) as file:
            header = _parse(file.text)
            self._require_own(header)
            file.verify()
            tensors = file.read_all()
        try:
            if len(header.plain.epochs) > self.spec.training.epochs:
                raise ValueError(f"it has {len(header.plain.epochs)} epochs")
            best_file = _bytes(tensors.pop(_BEST, None))
            state.load(header.plain, tensors)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            message = f"the state does not fit the training its spec describes: {str(error)[:200]}"
            raise InvalidCheckpoint(message) from error
        if best_file is None and state.best.epoch and not state.is_best:
            raise InvalidCheckpoint(f"the state lacks the best checkpoint so far, that of epoch {state.best.epoch}")
        checkpoints.restore(best_file, best=state.best.epoch, last=state.epoch)
        if state.is_of_epoch_end:
            # The network is the one of the last checkpoint, which need not be here.
            checkpoints.save(state.model, state.packed_masks(), state.epochs)
        if path.parent.resolve() == self.folder.resolve():
            self._kept = [self.folder / path.name]
            self._own.update(self._kept)
        warnings = differences(header.surroundings, self.surroundings)
        self.reproducible = self.reproducible and header.reproducible and not warnings
        return warnings

    def _require_own(self, header: StateHeader) -> None:
        if header.spec != self.spec:
            others = listed(_differing(header.spec.model_dump(mode="json"), self.spec.model_dump(mode="json")))
            raise InvalidCheckpoint(f"the state is of a training with another spec, in {others}")
        if header.table_sha256 != self.table_sha256:
            raise InvalidCheckpoint("the state is of a training on another table")

    def remove(self) -> None:
        """Remove the files of this training, which has ended."""
        self._remove_all_but([])

    def _remove_all_but(self, kept: list[Path]) -> None:
        for path in set(self.folder.glob("state-*.safetensors")).difference(kept, self._foreign):
            if path in self._own or self._is_own(path):
                path.unlink(missing_ok=True)
            else:
                self._foreign.add(path)
        for folder in self.folder.glob(unfinished(Path("state-*.safetensors")).name):
            shutil.rmtree(folder, ignore_errors=True)

    def _is_own(self, path: Path) -> bool:
        """Whether a file in the folder is of this training, perhaps from before it was stopped and begun anew."""
        try:
            with open_tensors(path, STATE_KEY) as file:
                self._require_own(_parse(file.text))
        except (InvalidCheckpoint, OSError):
            return False
        return True


def _differing(theirs: JsonValue, ours: JsonValue, pointer: str = "") -> list[str]:
    """Return the JSON pointers of what two documents do not have in common."""
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        return [] if theirs == ours else [pointer]
    names = [*ours, *(name for name in theirs if name not in ours)]
    return [
        place
        for name in names
        for place in _differing(theirs.get(name), ours.get(name), f"{pointer}{pointer_of([name])}")
    ]


def table_sha256(table: Table) -> str:
    """Return a digest of a table's times, values, columns, their ranges and frequency."""
    spans = [[span.start, span.stop] for span in table.spans]
    digest = hashlib.sha256(json.dumps([table.frequency, spans, *table.columns]).encode())
    digest.update(table.times.as_unit("us").asi8.tobytes())
    digest.update(np.ascontiguousarray(table.values).tobytes())
    return digest.hexdigest()


def threads_of(path: Path) -> int:
    """Return the CPU threads a state was made with; raises as `StateFiles.resume` does."""
    with open_tensors(path, STATE_KEY) as file:
        return _parse(file.text).surroundings.threads


def _parse(text: str) -> StateHeader:
    try:
        return StateHeader.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "/".join(str(part) for part in first["loc"])[:200]
        raise InvalidCheckpoint(f"the state's description is wrong: {place}: {first['msg'][:300]}") from error


def _bytes(tensor: Tensor | None) -> bytes | None:
    return None if tensor is None else bytes(tensor.numpy().tobytes())
