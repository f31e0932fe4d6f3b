"""What of a training's checkpoints reaches its supervisor."""

from __future__ import annotations

from pathlib import Path

import pytest

from pals_core.training.events import CheckpointSaved, Result, StateSaved
from worker.outbox import INTERVAL_SECONDS, Outbox


class Training:
    """Saves checkpoints into one folder and remembers what was handed over."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[tuple[int | str, bytes]] = []
        self.clock = 100.0
        self.folder = folder
        monkeypatch.setattr("worker.outbox.time.monotonic", lambda: self.clock)
        self.outbox = Outbox(folder / "outbox", self._hear)

    def _hear(self, saved: CheckpointSaved | StateSaved) -> None:
        name = saved.epoch if isinstance(saved, CheckpointSaved) else f"after {saved.step}"
        self.said.append((name, Path(saved.path).read_bytes()))

    def save_state(self, step: int) -> None:
        path = self.folder / f"state-{step}"
        path.write_bytes(b"state %d" % step)
        self.outbox.put(StateSaved(step=step, path=str(path)))
        path.unlink()

    def save(self, epoch: int, *, is_best: bool, is_last: bool = True, result: Result | None = None) -> None:
        path = self.folder / f"epoch-{epoch}"
        path.write_bytes(b"%d" % epoch)
        self.outbox.put(
            CheckpointSaved(
                step=10 * epoch,
                epoch=epoch,
                path=str(path),
                is_best=is_best,
                is_last=is_last,
                sparsity=0.0,
                validation_loss=1.0,
                result=result,
            )
        )
        path.unlink()


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    return Training(tmp_path, monkeypatch)


def test_the_first_is_handed_over_at_once_and_outlives_the_trainers_file(training: Training) -> None:
    training.save(1, is_best=True)
    assert training.said == [(1, b"1")]


def test_within_an_interval_only_the_newest_best_and_the_newest_last_are_kept(training: Training) -> None:
    training.save(1, is_best=True)
    for epoch, is_best in ((2, True), (3, True), (4, False), (5, False)):
        training.save(epoch, is_best=is_best)
    assert len(training.said) == 1
    training.clock += INTERVAL_SECONDS
    training.save(6, is_best=False)
    assert [epoch for epoch, _ in training.said] == [1, 3, 6]
    assert len(list((training.folder / "outbox").iterdir())) == 3


def test_a_new_best_replaces_everything_that_waits(training: Training) -> None:
    training.save(1, is_best=False)
    training.save(2, is_best=True)
    training.save(3, is_best=False)
    training.save(4, is_best=True)
    training.outbox.flush()
    assert [epoch for epoch, _ in training.said] == [1, 4]


def test_a_state_goes_at_once_after_the_checkpoints_that_came_before_it(training: Training) -> None:
    training.save(1, is_best=True)
    training.save(2, is_best=True)
    training.save(3, is_best=False)
    training.save_state(35)
    assert training.said == [(1, b"1"), (2, b"2"), (3, b"3"), ("after 35", b"state 35")]
    assert len(list((training.folder / "outbox").iterdir())) == 4


def test_what_is_handed_over_is_not_handed_over_again(training: Training) -> None:
    training.save(1, is_best=True)
    training.save_state(10)
    training.outbox.flush()
    training.outbox.flush()
    assert [name for name, _ in training.said] == [1, "after 10"]


def test_the_best_once_more_with_its_test_errors_leaves_the_last_alone(training: Training) -> None:
    training.save(1, is_best=True)
    for epoch in (2, 3):
        training.save(epoch, is_best=False)
    training.save(1, is_best=True, is_last=False, result=Result.model_construct())
    assert [name for name, _ in training.said] == [1, 3, 1]
