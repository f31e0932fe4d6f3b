from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobstore.settings import Settings
from jobstore.storage import ArtifactFolder, StorageFailed, open_artifacts
from tests.jobstore.storage.conftest import BYTES, InsideFolder


def test_only_a_folder_is_taken_for_a_store() -> None:
    with pytest.raises(ValueError, match=r"must be a folder \(file:///…\) or a bucket"):
        open_artifacts(Settings(artifacts_url="memory://bucket"))


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    root = tmp_path / "a folder of 100 %"
    for url in (root.as_uri(), str(root)):
        store = open_artifacts(Settings(artifacts_url=url))
        with store.writer("art_1") as writer:
            writer.commit()
        assert [path.name for path in root.iterdir()] == ["art_1"]
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
        ArtifactFolder((tmp_path / "file").as_uri()).writer("default/art_1")
