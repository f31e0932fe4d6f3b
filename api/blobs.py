"""Downloads of stored bytes: ETag, conditional and range requests, a proper file name."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.problems import ApiProblem, ProblemCode, problem_response
from api.ranges import ByteRange, RangeNotSatisfiable, names_entity, range_applies, requested_range
from jobstore.artifacts import StorageFailed

CHUNK = 256 * 1024
MEDIA_SUFFIXES = {
    "text/csv": ".csv",
    "application/gzip": ".csv.gz",
    "application/vnd.apache.parquet": ".parquet",
}
CHECKPOINT_MEDIA_TYPE = "application/vnd.safetensors"
CHECKPOINT_SUFFIX = ".pals.safetensors"
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]+')


def file_name(name: str, suffix: str) -> str:
    """A name every file system takes, ending in `suffix`."""
    safe = _UNSAFE.sub("_", name).strip(" .") or "download"
    return safe if safe.lower().endswith(suffix) else safe + suffix


def content_disposition(name: str) -> str:
    """An attachment's header: plain ASCII for old clients, RFC 8187 for the rest."""
    plain = name.encode("ascii", "replace").decode("ascii").replace("?", "_")
    header = f'attachment; filename="{plain}"'
    return header if plain == name else f"{header}; filename*=UTF-8''{quote(name, safe='')}"


def blob_response(request: Request, path: Path, *, sha256: str, media_type: str, name: str) -> Response:
    """Answer GET for a whole blob or one range of it. Raises StorageFailed when its bytes are gone.

    The file is opened here, so that a deletion meanwhile does not tear the download.
    """
    etag = f'"{sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": content_disposition(name),
    }
    if names_entity(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers={key: headers[key] for key in ("ETag", "Cache-Control")})
    try:
        file = path.open("rb")
        size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise StorageFailed("the stored bytes cannot be read") from error
    part: ByteRange | None = None
    if range_applies(request.headers.get("if-range"), etag):
        try:
            part = requested_range(request.headers.get("range"), size)
        except RangeNotSatisfiable:
            file.close()
            problem = ApiProblem(
                ProblemCode.RANGE_NOT_SATISFIABLE,
                f"The content has {size} bytes.",
                headers={"Content-Range": f"bytes */{size}", "ETag": etag},
            )
            return problem_response(request, problem)
    if part is None:
        part, status = ByteRange(0, size), 200
    else:
        status = 206
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    headers["Content-Length"] = str(part.stop - part.start)
    return _FileStream(file, part, status, headers, media_type)


class _FileStream(StreamingResponse):
    """Sends a part of an open file and closes it, also when the client leaves."""

    def __init__(
        self, file: IO[bytes], part: ByteRange, status_code: int, headers: dict[str, str], media_type: str
    ) -> None:
        self._file = file
        self._part = part
        super().__init__(self._chunks(), status_code, headers, media_type)

    async def __call__(self, *connection: Any) -> None:
        try:
            await super().__call__(*connection)
        finally:
            self._file.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        await anyio.to_thread.run_sync(self._file.seek, self._part.start)
        left = self._part.stop - self._part.start
        while left > 0:
            data = await anyio.to_thread.run_sync(self._file.read, min(CHUNK, left))
            if not data:
                raise StorageFailed("the stored bytes end early")
            left -= len(data)
            yield data
