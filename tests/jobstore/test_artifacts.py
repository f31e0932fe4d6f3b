from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from jobstore.artifacts import forget, mark_deleting, sweepable
from jobstore.database import now
from jobstore.storage import StorageFailed, StoredBlob
from jobstore.storage.folder import MARK
from jobstore.tables import Artifact

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store


def files_under(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and path.name != MARK]


def sweep(store: Store, *, hours: float) -> list[str]:
    """What upkeep does: mark, remove the bytes, remove the row."""
    with store.database.write() as session:
        doomed = sweepable(session, now=now(session) + timedelta(hours=hours))
    for artifact_id, key in doomed:
        store.artifacts.delete(key)
        with store.database.write() as session:
            forget(session, [artifact_id])
    return [artifact_id for artifact_id, _ in doomed]


def key_of(store: Store, artifact_id: str) -> str:
    with store.database.read() as session:
        return session.get_one(Artifact, artifact_id).key


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
        forget(session, [artifact_id])

    assert store.artifact_status(artifact_id) == "pending"


# --- crashes --------------------------------------------------------------------------------------

DYING_WRITER = """
import os, pathlib, signal, sys
from jobstore.storage import ArtifactFolder
root, key, point = sys.argv[1:]
writer = ArtifactFolder(root, new=True).writer(key)
def die(name):
    if name == point:
        os.kill(os.getpid(), signal.SIGKILL)
die("before the first byte")
writer.write(bytes(1_000_000))
die("after some bytes")
writer.write(bytes(1_000_000))
rename = pathlib.Path.rename
def dying(source, target):
    die("before the rename")
    rename(source, target)
    die("after the rename")
pathlib.Path.rename = dying
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
