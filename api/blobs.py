"""Downloads of stored bytes: ETag, conditional and range requests, a proper file name."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.head_requests import wants_body
from api.problems import ApiProblem, ProblemCode, problem_response
from api.ranges import ByteRange, RangeNotSatisfiable, names_entity, range_applies, requested_range
from jobstore.storage import ArtifactStore, BlobReader, StorageFailed
from jobstore.tables import Artifact
from pals_core.export.formats import ExportFormat

CHUNK = 256 * 1024
MEDIA_SUFFIXES = {
    "text/csv": ".csv",
    "application/gzip": ".csv.gz",
    "application/vnd.apache.parquet": ".parquet",
}
SAFETENSORS = "application/vnd.safetensors"
EXPORT_MEDIA_TYPES: Mapping[ExportFormat, str] = {
    ExportFormat.PACKED: SAFETENSORS,
    ExportFormat.DENSE: SAFETENSORS,
    ExportFormat.ONNX: "application/octet-stream",
    ExportFormat.CARD: "application/zip",
}
BLOB_RESPONSES: Mapping[int | str, dict[str, Any]] = {
    206: {"description": "The range asked for"},
    304: {"description": "The client has it already"},
    307: {"description": "Where it lies, for a minute (`PALS_DOWNLOAD_REDIRECTS`)"},
}
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


def blob_response(
    request: Request, artifacts: ArtifactStore, artifact: Artifact, *, media_type: str, name: str
) -> Response:
    """Answer GET for a whole published blob or one range of it. Raises StorageFailed when its bytes are gone.

    It is opened here, so that a deletion meanwhile does not tear the download. The whole of it may be had from where it
    lies, if the store has a link to it: ranges and conditions speak of an ETag that is not the one there.
    """
    etag, size = f'"{artifact.sha256}"', artifact.size or 0
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": content_disposition(name),
    }
    if names_entity(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers={key: headers[key] for key in ("ETag", "Cache-Control")})
    if "range" not in request.headers and wants_body(request):
        link = artifacts.link(artifact.key, media_type=media_type, disposition=headers["Content-Disposition"])
        if link is not None:
            return Response(status_code=307, headers={"Location": link, "Cache-Control": "private, no-store"})
    part: ByteRange | None = None
    if range_applies(request.headers.get("if-range"), etag):
        try:
            part = requested_range(request.headers.get("range"), size)
        except RangeNotSatisfiable:
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
    return _BlobStream(artifacts.open(artifact.key, part.start, part.stop), part, status, headers, media_type)


class _BlobStream(StreamingResponse):
    """Sends an open part of a blob and closes it, also when the client leaves."""

    def __init__(
        self, blob: BlobReader, part: ByteRange, status_code: int, headers: dict[str, str], media_type: str
    ) -> None:
        self._blob = blob
        self._part = part
        super().__init__(self._chunks(), status_code, headers, media_type)

    async def __call__(self, *connection: Any) -> None:
        try:
            await super().__call__(*connection)
        finally:
            self._blob.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        left = self._part.stop - self._part.start
        while left > 0:
            data = await anyio.to_thread.run_sync(self._blob.read, min(CHUNK, left))
            if not data:
                raise StorageFailed("the stored bytes end early")
            left -= len(data)
            yield data
