"""A file fetched in as many pieces as it takes, and believed only when its sha256 is right."""

from __future__ import annotations

import hashlib
import os
import time
from http import HTTPStatus
from pathlib import Path

import httpx

from pals_client.connection import Connection
from pals_client.errors import ApiError, DownloadCorrupted
from pals_client.retries import RETRIED_STATUSES


def wait_until_made(connection: Connection, url: str) -> tuple[str, int]:
    """Return sha256 and size of what is at `url`, once the service has made it.

    Raises ApiError, ServiceUnreachable.
    """
    while True:
        # One byte of it: the headers say the rest, and a refusal comes with its reason.
        response = connection.call("GET", url, repeatable=True, headers={"Range": "bytes=0-0"})
        if response.status_code != HTTPStatus.ACCEPTED:
            break
        time.sleep(float(response.headers.get("Retry-After", "1")))
    size = response.headers.get("Content-Range", "").rpartition("/")[2] or response.headers["Content-Length"]
    return response.headers["ETag"].strip('"'), int(size)


def fetch(connection: Connection, url: str, target: Path, *, sha256: str, size: int) -> None:
    """Download `url` to `target`, which appears whole or not at all.

    What an earlier call left half-done is completed. Raises DownloadCorrupted, ApiError,
    ServiceUnreachable, and OSError when the disk does not take it.
    """
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; name the file to write")
    target.parent.mkdir(parents=True, exist_ok=True)
    # The hash in its name keeps pieces of two versions of a file apart.
    partial = target.with_name(f".{target.name}.{sha256[:16]}.part")
    failures = 0
    while True:
        before = _size(partial)
        refusal: httpx.Response | None = None
        broken: httpx.TransportError | None = None
        if before < size:
            try:
                refusal = _fetch_rest(connection, url, partial, etag=f'"{sha256}"')
            except httpx.TransportError as error:
                broken = error
        if refusal is None and broken is None:
            break
        failures = 1 if _size(partial) > before else failures + 1
        if refusal is not None and (
            refusal.status_code not in RETRIED_STATUSES or failures >= connection.retries.attempts
        ):
            raise ApiError.of(refusal)
        if broken is not None and failures >= connection.retries.attempts:
            connection.give_up(broken)
        connection.retries.pause(failures, refusal)
    found = _sha256(partial)
    if found != sha256:
        partial.unlink()
        raise DownloadCorrupted(f"{url}: the downloaded bytes have sha256 {found}, the service named {sha256}")
    partial.replace(target)


def _fetch_rest(connection: Connection, url: str, partial: Path, *, etag: str) -> httpx.Response | None:
    """Append what is missing to `partial`; returns the answer when it is a refusal."""
    have = _size(partial)
    # Bytes are counted and hashed as they are stored, so no encoding may come between.
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": etag}
    with connection.stream(url, headers=headers) as response:
        if not response.is_success:
            response.read()
            return response
        goes_on = response.status_code == HTTPStatus.PARTIAL_CONTENT
        with partial.open("ab" if goes_on else "wb") as file:
            # As they arrive: collected into larger pieces, the last ones would be lost when the connection breaks.
            for chunk in response.iter_raw():
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
