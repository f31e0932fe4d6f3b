"""Artifacts in an S3-compatible bucket, through s3fs. Imported only where the settings name a bucket."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from aiohttp import ClientError as ConnectionFailed
from botocore.exceptions import BotoCoreError
from fsspec.asyn import sync
from s3fs import S3FileSystem

from jobstore.storage.copies import LocalCopies
from jobstore.storage.interface import (
    ArtifactStore,
    Beat,
    BlobMissing,
    BlobReader,
    BlobWriter,
    StorageFailed,
    checked,
    reason,
)

PART_BYTES = 8 * 1024 * 1024
# All attempts together end within two thirds of a lease: a worker that waits for the store renews it in time.
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 3, 10, 3
LINK_SECONDS = 60
# A download holds a connection as long as its client takes; nothing else is to wait for slow clients.
CONNECTIONS = 1000
FAILURES = (OSError, BotoCoreError, ConnectionFailed)
NO_SUCH_UPLOAD = "NoSuchUpload"
_CODE = re.compile(r"[A-Za-z]{1,64}")


class ArtifactBucket(ArtifactStore):
    """A bucket, or what lies in it below a prefix; credentials and endpoint come from the usual `AWS_…` environment.

    `scratch` is a folder of this host for copies that are needed as files; `links` says whether blobs may be fetched
    from the bucket itself.
    """

    def __init__(self, bucket: str, prefix: str, scratch: Path, *, links: bool = False) -> None:
        self._bucket = bucket
        self._links = links
        self._prefix = f"{prefix}/" if prefix else ""
        self._copies = LocalCopies(scratch, lambda key, target, beat: self.fetch(key, target, beat=beat).size)
        self._s3 = S3FileSystem(
            config_kwargs={
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": READ_SECONDS,
                "retries": {"total_max_attempts": ATTEMPTS, "mode": "standard"},
                "max_pool_connections": CONNECTIONS,
                # Botocore still signs addresses for downloads the old way unless told.
                "signature_version": "s3v4",
            },
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        # Repeating is botocore's business alone.
        self._s3.retries = 1
        self._s3.connect()

    def writer(self, key: str) -> BlobWriter:
        return _ObjectWriter(self, checked(key))

    def open(self, key: str, start: int = 0, stop: int | None = None) -> BlobReader:
        return _ObjectReader(self, checked(key), start, stop)

    def local(self, key: str, *, beat: Beat | None = None) -> AbstractContextManager[Path]:
        """A copy of the blob on this host."""
        return self._copies.use(checked(key), beat)

    def link(self, key: str, *, media_type: str, disposition: str) -> str | None:
        if not self._links:
            return None
        asked = {
            "Bucket": self._bucket,
            "Key": self._prefix + checked(key),
            "ResponseContentType": media_type,
            "ResponseContentDisposition": disposition,
        }
        address: str = self.wait(self._s3.s3.generate_presigned_url, "get_object", asked, LINK_SECONDS)
        return address

    def delete(self, key: str) -> None:
        self.call("delete_object", checked(key))
        begun = self.call("list_multipart_uploads", Prefix=self._prefix + key).get("Uploads", [])
        for upload in begun:
            if upload["Key"] == self._prefix + key:
                self._abort(key, upload["UploadId"])

    def _abort(self, key: str, upload_id: str) -> None:
        try:
            self.call("abort_multipart_upload", key, UploadId=upload_id)
        except StorageFailed as error:
            if NO_SUCH_UPLOAD not in str(error):
                raise

    def ping(self) -> None:
        # Always the same object: it appears whole whoever writes it, and nothing has to be removed.
        self.call("put_object", ".ready", Body=b"ready")

    def close(self) -> None:
        self._copies.close()
        sync(self._s3.loop, self._s3.s3.close)

    def call(self, method: str, key: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One request about the bucket or an object in it. Raises StorageFailed, BlobMissing."""
        if key is not None:
            parameters["Key"] = self._prefix + key
        try:
            answer: dict[str, Any] = self._s3.call_s3(method, Bucket=self._bucket, **parameters)
        except FAILURES as error:
            raise _failure(error) from error
        return answer

    def wait(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run a coroutine function on the loop that the connections belong to. Raises StorageFailed."""
        try:
            return sync(self._s3.loop, work, *arguments)
        except FAILURES as error:
            raise _failure(error) from error

    def later(self, work: Callable[[], Any]) -> None:
        """Run a function on that loop soon."""
        self._s3.loop.call_soon_threadsafe(work)


class _ObjectReader(BlobReader):
    """One request for all of the range, repeated for the rest when the connection breaks."""

    def __init__(self, bucket: ArtifactBucket, key: str, start: int, stop: int | None) -> None:
        self._bucket = bucket
        self._key = key
        self._position = start
        self._stop = stop
        self._body: Any = None
        if start == stop:
            # There is no range without bytes; but the blob has to be there.
            self._get({}).close()
        else:
            self._body = self._rest()

    def read(self, size: int = -1) -> bytes:
        if self._position == self._stop:
            return b""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                if self._body is None:
                    self._body = self._rest()
                data: bytes = self._bucket.wait(self._body.read, None if size < 0 else size)
            except BlobMissing:
                raise
            except StorageFailed:
                self.close()
                if attempt == ATTEMPTS:
                    raise
            else:
                break
        self._position += len(data)
        return data

    def close(self) -> None:
        if self._body is not None:
            self._bucket.later(self._body.close)
            self._body = None

    def _rest(self) -> Any:
        last = "" if self._stop is None else self._stop - 1
        whole = self._position == 0 and self._stop is None
        return self._get({} if whole else {"Range": f"bytes={self._position}-{last}"})

    def _get(self, parameters: dict[str, str]) -> Any:
        return self._bucket.call("get_object", self._key, **parameters)["Body"]


class _ObjectWriter(BlobWriter):
    """Sends parts as they fill; a blob that fits into one is sent when it is committed."""

    def __init__(self, bucket: ArtifactBucket, key: str) -> None:
        super().__init__()
        self._bucket = bucket
        self._key = key
        self._buffer = bytearray()
        self._upload: str | None = None
        self._parts: list[dict[str, Any]] = []

    def _append(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= PART_BYTES:
            part = bytes(self._buffer[:PART_BYTES])
            del self._buffer[:PART_BYTES]
            self._send(part)

    def _publish(self) -> None:
        if self._upload is None:
            self._bucket.call("put_object", self._key, Body=bytes(self._buffer))
            return
        if self._buffer:
            self._send(bytes(self._buffer))
        parts = {"Parts": self._parts}
        self._bucket.call("complete_multipart_upload", self._key, UploadId=self._upload, MultipartUpload=parts)

    def _discard(self) -> None:
        self._buffer.clear()
        if self._upload is not None:
            # What cannot be removed now goes when the sweep deletes the key.
            with suppress(StorageFailed):
                self._bucket.call("abort_multipart_upload", self._key, UploadId=self._upload)

    def _send(self, data: bytes) -> None:
        if self._upload is None:
            self._upload = self._bucket.call("create_multipart_upload", self._key)["UploadId"]
        number = len(self._parts) + 1
        sent = self._bucket.call("upload_part", self._key, UploadId=self._upload, PartNumber=number, Body=data)
        told = {name: value for name, value in sent.items() if name == "ETag" or re.match("Checksum[CS]", name)}
        self._parts.append({"PartNumber": number} | told)


def _failure(error: Exception) -> StorageFailed:
    """What went wrong, by the store's own code for it where there is one."""
    answer = getattr(error.__cause__, "response", None) or {}
    code = str(answer.get("Error", {}).get("Code", ""))
    if code == "NoSuchKey":
        return BlobMissing("the artifact store failed: there are no such bytes")
    return StorageFailed(f"the artifact store failed: {code}" if _CODE.fullmatch(code) else reason(error))
