from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobstore.logs import configure
from jobstore.settings import Settings
from jobstore.storage import BlobMissing, StorageFailed, open_artifacts
from jobstore.storage.bucket import ArtifactBucket, _ObjectReader
from tests.jobstore.storage.conftest import BYTES, InsideBucket
from tests.servers.s3 import SECRET, S3Server
from tests.servers.throwaway import free_port

KEY = "default/datasets/art_1"
ROOT = Path(__file__).parents[3]


def killed(bucket: InsideBucket, code: str) -> bool:
    """Whether another process that does this with its `store` dies of SIGKILL."""
    start = (
        "import os, signal; from jobstore.settings import Settings; from jobstore.storage import open_artifacts\n"
        "store = open_artifacts(Settings())\n"
    )
    variables = {**os.environ, **bucket.environment, "PALS_DATA_DIR": str(bucket.settings.root)}
    ended = subprocess.run([sys.executable, "-c", start + code], env=variables, cwd=ROOT)
    return ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///key", "s3://id:secret@bucket", "s3://bucket:9000", "s3://bucket?a=secret"]
)
def test_an_address_that_is_no_bucket_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="must be s3://bucket/prefix") as refused:
        open_artifacts(Settings(artifacts_url=url))
    assert "secret@" not in str(refused.value)
    assert "a=" not in str(refused.value)


def test_a_store_without_a_prefix_is_the_whole_bucket(bucket: InsideBucket, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.environment.items():
            patch.setenv(name, value)
        whole = open_artifacts(Settings(artifacts_url=f"s3://{bucket.bucket}", data_dir=tmp_path))
    with whole.writer("art_1") as writer:
        writer.commit()
    whole.close()
    assert bucket.direct.exists(f"{bucket.bucket}/art_1")


def test_a_copy_goes_with_the_store_and_a_killed_processs_copy_with_the_next(bucket: InsideBucket) -> None:
    with bucket.store.writer(KEY) as writer:
        writer.write(BYTES)
        writer.commit()
    assert killed(bucket, f"with store.local({KEY!r}): os.kill(os.getpid(), signal.SIGKILL)")
    scratch = bucket.settings.scratch_dir
    [left] = scratch.rglob("art_1")
    assert left.read_bytes() == BYTES
    with bucket.store.local(KEY) as copy:
        assert [*scratch.rglob("art_1")] == [copy]
    bucket.store.close()
    assert [*scratch.rglob("art_1")] == []


def test_a_writer_that_is_killed_leaves_nothing_visible_and_nothing_the_sweep_does_not_remove(
    bucket: InsideBucket,
) -> None:
    begin = f"writer = store.writer({KEY!r}); writer.write(bytes(20_000_000))"
    assert killed(bucket, f"{begin}; os.kill(os.getpid(), signal.SIGKILL)")
    assert (bucket.keys(), bucket.torn()) == ([], [KEY])
    bucket.store.delete(KEY)
    assert bucket.torn() == []


def test_a_connection_that_breaks_while_reading_costs_nothing(
    bucket: InsideBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bucket.store.writer(KEY) as writer:
        writer.write(BYTES)
        writer.commit()
    opened: list[int] = []
    rest = _ObjectReader._rest

    def breaking(reader: _ObjectReader) -> Any:
        opened.append(reader._position)
        body = rest(reader)
        if len(opened) < 3:
            monkeypatch.setattr(body, "read", broken)
        return body

    async def broken(size: int | None) -> bytes:
        raise ConnectionResetError

    monkeypatch.setattr(_ObjectReader, "_rest", breaking)
    with bucket.store.open(KEY, 10) as blob:
        assert blob.read(1000) + blob.read() == BYTES[10:]
    assert opened == [10, 10, 10]


def test_a_bucket_that_is_not_there_is_no_missing_blob(bucket: InsideBucket) -> None:
    assert isinstance(bucket.store, ArtifactBucket)
    bucket.store._bucket = "nobodys"
    for use in (bucket.store.read, bucket.store.delete, lambda key: bucket.store.ping()):
        with pytest.raises(StorageFailed, match=r"^the artifact store failed: NoSuchBucket$") as failure:
            use(KEY)
        assert not isinstance(failure.value, BlobMissing)


def test_a_store_that_is_away_is_a_storage_failure(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**s3_server.environment("b"), "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}.items():
        monkeypatch.setenv(name, value)
    store = open_artifacts(Settings(data_dir=tmp_path))
    with pytest.raises(StorageFailed, match=r"^the artifact store failed: EndpointConnectionError$"):
        store.ping()
    with pytest.raises(StorageFailed), store.writer(KEY) as writer:
        writer.write(BYTES)
    store.close()


def test_credentials_reach_no_log_even_when_everything_is_logged(
    bucket: InsideBucket, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    monkeypatch.setattr(root, "level", root.level)
    configure(Settings(log_level="debug"))
    logging.getLogger("jobstore").debug("debugging is on")
    bucket.store.ping()
    with pytest.raises(BlobMissing):
        bucket.store.read("missing")
    said = capfd.readouterr().err
    assert "debugging is on" in said
    assert SECRET not in said
    assert "pals-tests" not in said
    assert "Signature" not in said


def test_the_embedded_service_does_not_load_what_a_bucket_needs() -> None:
    code = (
        "import sys; from jobstore.settings import Settings; from jobstore.storage import open_artifacts\n"
        "import api.app, worker.run; open_artifacts(Settings())\n"
        "print(*sorted({'aiobotocore', 'aiohttp', 'botocore', 's3fs'} & {*sys.modules}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout.strip() == ""
