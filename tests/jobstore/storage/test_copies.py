from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from jobstore.storage import BlobMissing, StorageFailed, copies
from jobstore.storage.copies import LocalCopies
from jobstore.storage.interface import Beat
from tests.eventually import eventually

SIZE = 1000
PATIENCE = 30.0


class GivenUp(Exception):
    """What a beat raises."""


def give_up() -> None:
    raise GivenUp


class Remote:
    """A store that counts how often it is asked."""

    def __init__(self, folder: Path, kept: int) -> None:
        self.fetched: list[str] = []
        self.go = threading.Event()
        self.go.set()
        self.copies = LocalCopies(folder, self.fetch, kept * SIZE)

    def fetch(self, key: str, target: Path, beat: Beat | None) -> int:
        self.fetched.append(key)
        target.write_bytes(bytes(SIZE))
        self.go.wait()
        if beat is not None:
            beat()
        if key == "gone":
            raise BlobMissing
        return SIZE

    def use(self, key: str, beat: Beat | None = None) -> Path:
        with self.copies.use(key, beat) as path:
            assert path.stat().st_size == SIZE
            return path

    def fetching(self, use: Callable[[], object]) -> threading.Thread:
        """A thread that uses a blob and has begun to fetch it, which takes until `go` is set."""
        self.go.clear()
        thread = threading.Thread(target=use)
        thread.start()
        eventually(lambda: self.fetched, "the fetch has begun", PATIENCE)
        return thread


def test_a_copy_is_kept_for_the_next_at_the_same_place(tmp_path: Path) -> None:
    remote = Remote(tmp_path, kept=2)
    assert remote.use("a/art_1") == remote.use("a/art_1")
    assert remote.fetched == ["a/art_1"]


def test_beyond_the_bound_the_least_recently_used_go_first(tmp_path: Path) -> None:
    remote = Remote(tmp_path, kept=2)
    first, second = remote.use("art_1"), remote.use("art_2")
    remote.use("art_1")
    third = remote.use("art_3")
    assert (first.exists(), second.exists(), third.exists()) == (True, False, True)
    remote.use("art_2")
    assert remote.fetched == ["art_1", "art_2", "art_3", "art_2"]


def test_what_is_in_use_stays_whatever_else_is_used(tmp_path: Path) -> None:
    remote = Remote(tmp_path, kept=0)
    with remote.copies.use("art_1", None) as first:
        assert not remote.use("art_2").exists()
        assert remote.use("art_1") == first
        assert first.exists()
    assert not first.exists()


def test_many_who_ask_at_once_wait_for_one_fetch(tmp_path: Path) -> None:
    remote = Remote(tmp_path, kept=2)
    remote.go.clear()
    threads = [threading.Thread(target=remote.use, args=("art_1",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    remote.go.set()
    for thread in threads:
        thread.join()
    assert remote.fetched == ["art_1"]


def test_who_waits_for_anothers_fetch_beats_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "BEAT_SECONDS", 0.05)
    remote = Remote(tmp_path, kept=2)
    fetching = remote.fetching(partial(remote.use, "art_1"))
    beats: list[int] = []

    def beat() -> None:
        beats.append(1)
        if len(beats) == 3:
            remote.go.set()
            fetching.join(PATIENCE)
            assert not fetching.is_alive()

    remote.use("art_1", beat)
    assert (len(beats), remote.fetched) == (3, ["art_1"])


def test_who_gives_up_waiting_leaves_the_fetch_and_the_copy_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "BEAT_SECONDS", 0.05)
    remote = Remote(tmp_path, kept=0)
    fetching = remote.fetching(partial(remote.use, "art_1"))
    for _ in range(2):
        with pytest.raises(GivenUp):
            remote.use("art_1", give_up)
    remote.go.set()
    fetching.join()
    assert not remote.use("art_1").exists()
    assert remote.fetched == ["art_1", "art_1"]


def test_a_fetch_that_is_given_up_goes_over_to_who_waits_for_it(tmp_path: Path) -> None:
    remote = Remote(tmp_path, kept=2)

    def fetch() -> None:
        with pytest.raises(GivenUp):
            remote.use("art_1", give_up)

    fetching = remote.fetching(fetch)
    waiting = threading.Thread(target=remote.use, args=("art_1",))
    waiting.start()
    remote.go.set()
    fetching.join()
    waiting.join()
    assert remote.fetched == ["art_1", "art_1"]
    assert remote.use("art_1").exists()


def test_what_could_not_be_fetched_leaves_nothing_and_is_fetched_again(tmp_path: Path) -> None:
    remote = Remote(tmp_path, kept=2)
    for _ in range(2):
        with pytest.raises(BlobMissing):
            remote.use("gone")
    assert remote.fetched == ["gone", "gone"]
    assert [*tmp_path.rglob("gone")] == []


def test_a_host_without_room_for_copies_is_a_storage_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    remote = Remote(tmp_path / "file", kept=2)
    with pytest.raises(StorageFailed, match="no folder for copies"):
        remote.use("art_1")


def test_closing_removes_the_folder(tmp_path: Path) -> None:
    remote = Remote(tmp_path, kept=2)
    path = remote.use("art_1")
    remote.copies.close()
    assert not path.parent.exists()
