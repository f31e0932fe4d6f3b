from __future__ import annotations

import threading
from pathlib import Path

import pytest

from jobstore.storage import BlobMissing, StorageFailed
from jobstore.storage.copies import LocalCopies
from jobstore.storage.interface import Beat

SIZE = 1000


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
        if key == "gone":
            raise BlobMissing
        return SIZE

    def use(self, key: str) -> Path:
        with self.copies.use(key, None) as path:
            assert path.stat().st_size == SIZE
            return path


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
