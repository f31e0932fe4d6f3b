from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobstore.settings import Settings
from jobstore.storage import ArtifactFolder, BlobMissing, StorageFailed, open_artifacts
from jobstore.storage import folder as folder_module
from jobstore.storage.folder import MARK
from tests.jobstore.storage.conftest import BYTES, InsideFolder


def test_only_a_folder_is_taken_for_a_store() -> None:
    with pytest.raises(ValueError, match=r"must be a folder \(file:///…\) or a bucket"):
        open_artifacts(Settings(artifacts_url="memory://bucket"))


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    root = tmp_path / "a folder of 100 %"
    for url in (root.as_uri(), str(root)):
        store = open_artifacts(Settings(artifacts_url=url), new=True)
        with store.writer("art_1") as writer:
            writer.commit()
        assert {path.name for path in root.iterdir()} == {MARK, "art_1"}
        store.delete("art_1")


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Files of this process end at `limit` bytes: a real error from a real write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_while_writing_is_a_storage_failure_and_leaves_nothing(folder: InsideFolder) -> None:
    with (
        full_disk(1_000_000),
        pytest.raises(StorageFailed, match="File too large"),
        folder.store.writer("art_1") as writer,
    ):
        writer.write(BYTES)
    assert folder.files() == []


def test_a_disk_that_fills_up_with_the_last_buffer_is_a_storage_failure_and_leaves_nothing(
    folder: InsideFolder,
) -> None:
    with full_disk(100), pytest.raises(StorageFailed, match="File too large"), folder.store.writer("art_1") as writer:
        writer.write(BYTES[:200])
        writer.commit()
    assert folder.files() == []


def test_a_copy_that_does_not_fit_leaves_nothing(folder: InsideFolder, tmp_path: Path) -> None:
    source = tmp_path / "checkpoint"
    source.write_bytes(BYTES)
    with full_disk(1_000_000), pytest.raises(StorageFailed):
        folder.store.put("art_1", source)
    assert folder.files() == []


def test_readiness_is_a_real_write(folder: InsideFolder) -> None:
    folder.store.ping()
    with full_disk(0), pytest.raises(StorageFailed):
        folder.store.ping()


def test_a_store_whose_folder_cannot_be_made_is_a_storage_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailed):
        ArtifactFolder((tmp_path / "file").as_uri(), new=True).writer("default/art_1")


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Have a file system of its own lie at the folder, which is empty without it."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a file system needs root and the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_the_empty_place_of_a_store_that_is_not_mounted_is_a_store_that_is_away(tmp_path: Path) -> None:
    url = tmp_path.as_uri()
    store, other = ArtifactFolder(url, new=True), ArtifactFolder(url)
    with mounted(tmp_path):
        for each in (store, other):
            with each.writer("art_1") as writer:
                writer.commit()
        with pytest.raises(BlobMissing):
            other.open("art_2")
    uses: list[Callable[[ArtifactFolder], object]] = [
        lambda store: store.open("art_1"),
        lambda store: store.local("art_1").__enter__(),
        lambda store: store.writer("art_2"),
        lambda store: store.delete("art_1"),
        lambda store: store.ping(),
    ]
    for each in (store, other, ArtifactFolder(url)):
        for use in uses:
            with pytest.raises(StorageFailed, match="is away: its folder is not mounted") as failure:
                use(each)
            assert not isinstance(failure.value, BlobMissing)
    assert list(tmp_path.iterdir()) == []


def test_a_store_from_before_there_were_marks_is_not_refused_and_gets_one(tmp_path: Path) -> None:
    blob = tmp_path / "default" / "datasets" / "art_1"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"from before")
    with pytest.raises(BlobMissing):
        ArtifactFolder(tmp_path.as_uri()).open("default/datasets/art_2")
    assert (tmp_path / MARK).exists()
    blob.unlink()
    ArtifactFolder(tmp_path.as_uri()).ping()


def test_a_new_store_that_another_thread_marks_meanwhile_is_not_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactFolder(str(tmp_path / "artifacts"), new=True)
    holds_blobs = folder_module._holds_blobs

    def while_another_marks_it(root: Path) -> bool:
        found = holds_blobs(root)
        monkeypatch.setattr(folder_module, "_holds_blobs", holds_blobs)
        store.ping()
        return found

    monkeypatch.setattr(folder_module, "_holds_blobs", while_another_marks_it)
    store.ping()
    assert (store.root / MARK).exists()


def test_what_was_half_written_or_is_no_blob_does_not_make_a_store(tmp_path: Path) -> None:
    (tmp_path / "NOT_MOUNTED").write_bytes(b"")
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / ".art_1.part").write_bytes(b"half")
    with pytest.raises(StorageFailed, match="away"):
        ArtifactFolder(tmp_path.as_uri()).ping()


def test_a_store_that_is_emptied_keeps_its_mark(folder: InsideFolder) -> None:
    with folder.store.writer("default/datasets/art_1") as writer:
        writer.commit()
    folder.store.delete("default/datasets/art_1")
    assert folder.files() == []
    ArtifactFolder(folder.store.root.as_uri()).ping()
