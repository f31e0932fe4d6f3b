from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from jobstore.storage import BlobMissing, StoredBlob
from tests.jobstore.storage.conftest import BYTES, Inside

KEY = "default/datasets/art_1"


def store_bytes(inside: Inside, data: bytes = BYTES, key: str = KEY) -> StoredBlob:
    with inside.store.writer(key) as writer:
        for start in range(0, len(data), 1_000_000):
            writer.write(data[start : start + 1_000_000])
        return writer.commit()


@pytest.mark.parametrize("size", [0, 1, 1000, len(BYTES)])
def test_what_is_written_is_read_back_and_described_by_its_hash(inside: Inside, size: int) -> None:
    blob = store_bytes(inside, BYTES[:size])

    assert blob == StoredBlob(hashlib.sha256(BYTES[:size]).hexdigest(), size)
    assert inside.store.read(KEY) == BYTES[:size]
    assert (inside.keys(), inside.torn()) == ([KEY], [])


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, None), (0, len(BYTES)), (0, 1), (5, 5), (17, 20_000_000), (len(BYTES) - 1, None), (len(BYTES), len(BYTES))],
)
def test_a_range_is_read_in_pieces_of_any_size(inside: Inside, start: int, stop: int | None) -> None:
    store_bytes(inside)
    with inside.store.open(KEY, start, stop) as blob:
        first = blob.read(3)
        pieces = list(iter(lambda: blob.read(3_000_000), b""))
        assert blob.read(1) == b""
    assert len(first) <= 3
    assert first + b"".join(pieces) == BYTES[start:stop]
    with inside.store.open(KEY, start, stop) as blob:
        assert blob.read() == BYTES[start:stop]


def test_a_file_is_copied_into_the_store_and_back(inside: Inside, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(BYTES)
    beats: list[int] = []

    blob = inside.store.put(KEY, source, beat=lambda: beats.append(1))
    assert blob == StoredBlob(hashlib.sha256(BYTES).hexdigest(), len(BYTES))
    assert len(beats) >= 20
    assert inside.store.fetch(KEY, target, beat=lambda: beats.append(1)) == blob
    assert len(beats) >= 40
    assert target.read_bytes() == source.read_bytes() == BYTES


def test_a_blob_is_a_file_as_long_as_one_is_needed(inside: Inside) -> None:
    store_bytes(inside)
    with inside.store.local(KEY) as file, inside.store.local(KEY) as again:
        assert file.read_bytes() == again.read_bytes() == BYTES


def test_nothing_is_visible_under_the_key_before_the_blob_is_whole(inside: Inside) -> None:
    with inside.store.writer(KEY) as writer:
        writer.write(BYTES)
        assert (inside.keys(), len(inside.torn())) == ([], 1)
        with pytest.raises(BlobMissing):
            inside.store.read(KEY)
        writer.commit()
    assert (inside.keys(), inside.torn()) == ([KEY], [])


@pytest.mark.parametrize("size", [0, 1000, len(BYTES)])
def test_an_upload_that_is_given_up_leaves_nothing(inside: Inside, size: int) -> None:
    with pytest.raises(ConnectionResetError), inside.store.writer(KEY) as writer:
        writer.write(BYTES[:size])
        raise ConnectionResetError
    assert (inside.keys(), inside.torn()) == ([], [])


def test_deleting_removes_the_blob_and_what_interrupted_writes_left_and_repeats_harmlessly(inside: Inside) -> None:
    store_bytes(inside, b"whole")
    store_bytes(inside, b"another", KEY + "0")
    with inside.store.writer(KEY) as one, inside.store.writer(KEY + "0") as other:
        one.write(BYTES)
        other.write(BYTES)
        inside.store.delete(KEY)
        inside.store.delete(KEY)

        assert inside.keys() == [KEY + "0"]
        assert len(inside.torn()) == 1
        inside.store.delete(KEY + "0")
        assert (inside.keys(), inside.torn()) == ([], [])


def test_a_write_whose_key_the_sweep_has_deleted_leaves_nothing_torn(inside: Inside) -> None:
    with inside.store.writer(KEY) as writer:
        writer.write(BYTES)
        inside.store.delete(KEY)
    assert (inside.keys(), inside.torn()) == ([], [])


def test_what_is_open_is_read_to_its_end_though_it_is_deleted(inside: Inside) -> None:
    store_bytes(inside, BYTES[:5_000_000])
    with inside.store.open(KEY) as blob:
        first = blob.read(1000)
        inside.store.delete(KEY)
        assert first + blob.read() == BYTES[:5_000_000]


@pytest.mark.parametrize(
    "key", ["../outside", "default/../../outside", "/etc/passwd", "default/..", "a/../b", "", "a//b"]
)
def test_a_key_that_leads_out_of_the_store_is_refused(inside: Inside, key: str) -> None:
    for use in (
        inside.store.writer,
        inside.store.open,
        inside.store.delete,
        lambda key: inside.store.local(key).__enter__(),
    ):
        with pytest.raises(ValueError, match="not an artifact key"):
            use(key)


def test_what_is_not_there_is_missing_and_the_answer_names_no_place(inside: Inside, tmp_path: Path) -> None:
    store_bytes(inside, b"", "other")
    for use in (
        inside.store.open,
        lambda key: inside.store.open(key, 1, 1),
        lambda key: inside.store.local(key).__enter__(),
        lambda key: inside.store.fetch(key, tmp_path / "copy"),
    ):
        with pytest.raises(BlobMissing) as failure:
            use("art_1")
        assert str(failure.value) in {
            "the artifact store failed: No such file or directory",
            "the artifact store failed: there are no such bytes",
        }


def test_readiness_leaves_nothing_to_be_swept(inside: Inside) -> None:
    inside.store.ping()
    inside.store.ping()
    assert (inside.keys(), inside.torn()) == ([], [])


def test_threads_share_a_store(inside: Inside) -> None:
    def there_and_back(number: int) -> None:
        data = bytes([number]) * (1_000_000 * number)
        store_bytes(inside, data, f"art_{number}")
        assert inside.store.read(f"art_{number}") == data
        done.append(number)

    done: list[int] = []
    threads = [threading.Thread(target=there_and_back, args=(number,)) for number in range(1, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(1, 13))
