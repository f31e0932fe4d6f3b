from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from jobstore.artifacts import ArtifactFolder, StorageFailed, StoredBlob, forget, mark_deleting, sweepable
from jobstore.database import now
from jobstore.tables import Artifact

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store

BYTES = bytes(range(256)) * 20_000  # 5 MB, many times the buffers on the way


@pytest.fixture
def folder(tmp_path: Path) -> ArtifactFolder:
    return ArtifactFolder((tmp_path / "artifacts").as_uri())


def files_under(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def sweep(store: Store, *, hours: float) -> list[str]:
    """What upkeep does: mark, remove the bytes, remove the row."""
    with store.database.write() as session:
        doomed = sweepable(session, now=now(session) + timedelta(hours=hours))
    for artifact_id, key in doomed:
        store.artifacts.delete(key)
        with store.database.write() as session:
            forget(session, artifact_id)
    return [artifact_id for artifact_id, _ in doomed]


def key_of(store: Store, artifact_id: str) -> str:
    with store.database.read() as session:
        return session.get_one(Artifact, artifact_id).key


# --- bytes ----------------------------------------------------------------------------------------


def test_what_is_written_is_read_back_and_described_by_its_hash(folder: ArtifactFolder) -> None:
    with folder.writer("default/datasets/art_1") as writer:
        writer.write(BYTES[:1000])
        writer.write(BYTES[1000:])
        blob = writer.commit()

    assert blob == StoredBlob(hashlib.sha256(BYTES).hexdigest(), len(BYTES))
    assert folder.size("default/datasets/art_1") == len(BYTES)
    with folder.open("default/datasets/art_1") as file:
        assert file.read() == BYTES


def test_a_file_is_copied_into_the_store(folder: ArtifactFolder, tmp_path: Path) -> None:
    source = tmp_path / "checkpoint"
    source.write_bytes(BYTES)

    assert folder.put("art_1", source) == StoredBlob(hashlib.sha256(BYTES).hexdigest(), len(BYTES))
    assert folder.path("art_1").read_bytes() == BYTES
    assert source.exists()


def test_an_empty_blob_is_a_blob(folder: ArtifactFolder) -> None:
    with folder.writer("art_1") as writer:
        blob = writer.commit()

    assert blob == StoredBlob(hashlib.sha256().hexdigest(), 0)
    assert folder.size("art_1") == 0


def test_nothing_is_visible_under_the_key_before_the_blob_is_whole(folder: ArtifactFolder) -> None:
    with folder.writer("art_1") as writer:
        writer.write(BYTES)
        assert not folder.path("art_1").exists()
        writer.commit()
        assert folder.path("art_1").read_bytes() == BYTES


def test_an_upload_that_is_given_up_leaves_no_file(folder: ArtifactFolder) -> None:
    with pytest.raises(ConnectionResetError), folder.writer("art_1") as writer:
        writer.write(BYTES)
        raise ConnectionResetError
    assert files_under(folder.root) == []


def test_deleting_removes_the_blob_and_what_an_interrupted_write_left_and_repeats_harmlessly(
    folder: ArtifactFolder,
) -> None:
    with folder.writer("art_1") as writer:
        writer.commit()
    (folder.root / ".art_1.part").write_bytes(b"torn")
    folder.delete("art_1")
    folder.delete("art_1")

    assert files_under(folder.root) == []


@pytest.mark.parametrize("key", ["../outside", "default/../../outside", "/etc/passwd", "default/..", "a/../b", ""])
def test_a_key_that_leads_out_of_the_store_is_refused(folder: ArtifactFolder, key: str) -> None:
    for use in (folder.path, folder.writer, folder.size, folder.delete):
        with pytest.raises(ValueError, match="not an artifact key"):
            use(key)


def test_what_is_not_there_is_a_storage_failure_that_names_no_path_of_the_host(folder: ArtifactFolder) -> None:
    for use in (folder.size, lambda key: folder.open(key).__enter__()):
        with pytest.raises(StorageFailed) as failure:
            use("art_1")
        assert str(failure.value) == "the artifact store failed: No such file or directory"


def test_only_a_folder_is_taken_for_a_store() -> None:
    with pytest.raises(ValueError, match=r"must be a folder \(file:///…\), not memory:"):
        ArtifactFolder("memory://bucket")


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Files of this process end at `limit` bytes: a real error from a real write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_while_writing_is_a_storage_failure_and_leaves_nothing(folder: ArtifactFolder) -> None:
    with full_disk(1_000_000), pytest.raises(StorageFailed, match="File too large"), folder.writer("art_1") as writer:
        writer.write(BYTES)
    assert files_under(folder.root) == []


def test_a_disk_that_fills_up_with_the_last_buffer_is_a_storage_failure_and_leaves_nothing(
    folder: ArtifactFolder,
) -> None:
    with full_disk(100), pytest.raises(StorageFailed, match="File too large"), folder.writer("art_1") as writer:
        writer.write(BYTES[:200])
        writer.commit()
    assert files_under(folder.root) == []


def test_a_copy_that_does_not_fit_leaves_nothing(folder: ArtifactFolder, tmp_path: Path) -> None:
    source = tmp_path / "checkpoint"
    source.write_bytes(BYTES)
    with full_disk(1_000_000), pytest.raises(StorageFailed):
        folder.put("art_1", source)
    assert files_under(folder.root) == []


def test_readiness_is_a_real_write(folder: ArtifactFolder) -> None:
    folder.ping()
    with full_disk(0), pytest.raises(StorageFailed):
        folder.ping()


def test_a_store_whose_folder_cannot_be_made_is_a_storage_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailed):
        ArtifactFolder((tmp_path / "file").as_uri()).writer("default/art_1")


# --- rows -----------------------------------------------------------------------------------------


def test_an_artifact_is_pending_until_it_is_published_with_its_hash(store: Store) -> None:
    artifact_id = store.artifact("datasets")
    assert key_of(store, artifact_id) == f"default/datasets/{artifact_id}"
    assert store.artifact_status(artifact_id) == "pending"

    store.publish(artifact_id, StoredBlob("a" * 64, 7))
    with store.database.read() as session:
        row = session.get_one(Artifact, artifact_id)
    assert (row.status, row.sha256, row.size) == ("published", "a" * 64, 7)


def test_the_sweep_takes_pending_artifacts_after_a_day_and_given_up_ones_at_once(store: Store) -> None:
    pending, given_up, published = store.artifact(), store.artifact(), store.artifact()
    store.publish(given_up)
    store.publish(published)
    with store.database.write() as session:
        mark_deleting(session, given_up)

    assert sweep(store, hours=0) == [given_up]
    assert sweep(store, hours=23) == []
    assert sweep(store, hours=25) == [pending]
    assert sweep(store, hours=1000) == []
    assert [store.artifact_status(artifact) for artifact in (pending, given_up, published)] == [
        None, None, "published",
    ]  # fmt: skip


def test_a_pending_artifact_that_something_refers_to_is_never_swept(store: Store) -> None:
    dataset = store.dataset()
    with store.database.write() as session:
        session.execute(update(Artifact).values(status="pending"))

    assert sweep(store, hours=1000) == []
    assert store.queue(dataset=dataset)


def test_bytes_are_read_whole_or_not_at_all(store: Store) -> None:
    with store.artifacts.writer("default/evaluations/art_1") as writer:
        writer.write(b"{}")
        writer.commit()
    assert store.artifacts.read("default/evaluations/art_1") == b"{}"
    with pytest.raises(StorageFailed):
        store.artifacts.read("default/evaluations/art_2")


def test_what_the_sweep_took_cannot_be_published_any_more(store: Store) -> None:
    artifact_id = store.artifact()
    with store.database.write() as session:
        sweepable(session, now=now(session) + timedelta(hours=25))

    with pytest.raises(StorageFailed, match="swept"):
        store.publish(artifact_id)
    assert store.artifact_status(artifact_id) == "deleting"


def test_a_row_is_forgotten_only_when_it_was_given_up(store: Store) -> None:
    artifact_id = store.artifact()
    with store.database.write() as session:
        forget(session, artifact_id)

    assert store.artifact_status(artifact_id) == "pending"


# --- crashes --------------------------------------------------------------------------------------

DYING_WRITER = """
import os, signal, sys
from jobstore.artifacts import ArtifactFolder
root, key, point = sys.argv[1:]
writer = ArtifactFolder(root).writer(key)
def die(name):
    if name == point:
        os.kill(os.getpid(), signal.SIGKILL)
die("before the first byte")
writer.write(bytes(1_000_000))
die("after some bytes")
writer.write(bytes(1_000_000))
rename = writer._folder.filesystem.mv
def mv(source, target):
    die("before the rename")
    rename(source, target)
    die("after the rename")
writer._folder.filesystem.mv = mv
writer.commit()
die("before publishing")
"""


@pytest.mark.parametrize(
    ("point", "whole"),
    [
        ("before the first byte", False),
        ("after some bytes", False),
        ("before the rename", False),
        ("after the rename", True),
        ("before publishing", True),
    ],
)
def test_a_writer_killed_anywhere_leaves_no_torn_blob_and_nothing_the_sweep_cannot_take(
    store: Store, point: str, whole: bool
) -> None:
    artifact_id = store.artifact()
    key = key_of(store, artifact_id)
    died = subprocess.run(
        [sys.executable, "-c", DYING_WRITER, store.artifacts.root.as_uri(), key, point],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert died.returncode == -signal.SIGKILL

    visible = store.artifacts.path(key)
    assert visible.exists() == whole
    if whole:
        assert visible.read_bytes() == bytes(2_000_000)
    assert store.artifact_status(artifact_id) == "pending"
    assert sweep(store, hours=25) == [artifact_id]
    assert files_under(store.artifacts.root) == []
    assert store.artifact_status(artifact_id) is None


def test_a_sweep_that_died_after_removing_the_bytes_is_finished_by_the_next(store: Store) -> None:
    artifact_id = store.artifact()
    with store.artifacts.writer(key_of(store, artifact_id)) as writer:
        blob = writer.commit()
    store.publish(artifact_id, blob)
    with store.database.write() as session:
        mark_deleting(session, artifact_id)
    with store.database.write() as session:
        [(_, key)] = sweepable(session, now=now(session))
    store.artifacts.delete(key)

    assert sweep(store, hours=0) == [artifact_id]
    assert store.artifact_status(artifact_id) is None
