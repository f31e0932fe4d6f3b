from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Problem, Server


@pytest.fixture(scope="module")
def checkpoint(server: Server, best_checkpoint: Path) -> dict[str, Any]:
    job = server.queue(name='Zürich / "24 h"')
    lease = server.claim(job["id"])
    checkpoint_id = server.checkpoint(lease, 1, best_checkpoint)
    server.end(lease)
    shown: dict[str, Any] = server.http.get(f"/v1/checkpoints/{checkpoint_id}").json()
    return shown


@pytest.fixture
def url(checkpoint: dict[str, Any]) -> str:
    content: str = checkpoint["urls"]["content"]
    return content


def test_the_whole_file_comes_with_its_digest_as_etag(
    server: Server, checkpoint: dict[str, Any], url: str, best_checkpoint: Path
) -> None:
    response = server.http.get(url)
    assert response.status_code == 200
    assert response.content == best_checkpoint.read_bytes()
    digest = hashlib.sha256(response.content).hexdigest()
    assert response.headers["etag"] == f'"{digest}"'
    assert digest == checkpoint["sha256"]
    assert len(response.content) == checkpoint["bytes"] == int(response.headers["content-length"])
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-disposition"] == (
        'attachment; filename="Z_rich _ _24 h_.pals.safetensors"; '
        "filename*=UTF-8''Z%C3%BCrich%20_%20_24%20h_.pals.safetensors"
    )
    assert response.headers["x-content-type-options"] == "nosniff"


def test_head_tells_the_same_without_the_bytes(server: Server, url: str) -> None:
    whole, head = server.http.get(url), server.http.head(url, headers={"Range": "bytes=0-9"})
    assert head.status_code == 200
    assert head.content == b""
    for name in ("etag", "content-length", "content-type", "accept-ranges", "content-disposition"):
        assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize("header", ["bytes=0-9", "bytes=100-", "bytes=-50", "bytes=5-5", "bytes=0-99999999999"])
def test_a_range_is_a_part_of_the_file(server: Server, url: str, best_checkpoint: Path, header: str) -> None:
    data = best_checkpoint.read_bytes()
    first, _, last = header.removeprefix("bytes=").partition("-")
    start = int(first) if first else len(data) - int(last)
    stop = min(len(data), int(last) + 1) if first and last else len(data)
    response = server.http.get(url, headers={"Range": header})
    assert response.status_code == 206
    assert response.content == data[start:stop]
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(data)}"
    assert response.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("header", ["items=0-9", "bytes=9-0", "bytes=0-1,4-5", "bytes=x", "bytes="])
def test_a_range_that_is_none_is_ignored(server: Server, url: str, best_checkpoint: Path, header: str) -> None:
    response = server.http.get(url, headers={"Range": header})
    assert response.status_code == 200
    assert response.content == best_checkpoint.read_bytes()


def test_a_range_behind_the_end_is_416(server: Server, url: str, best_checkpoint: Path, problem: Problem) -> None:
    size = best_checkpoint.stat().st_size
    response = server.http.get(url, headers={"Range": f"bytes={size}-"})
    problem(response, 416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{size}"


def test_an_interrupted_download_goes_on_only_while_the_file_is_the_same(server: Server, url: str) -> None:
    etag = server.http.head(url).headers["etag"]
    assert server.http.get(url, headers={"Range": "bytes=10-", "If-Range": etag}).status_code == 206
    for other in ('"other"', f"W/{etag}", "Wed, 21 Oct 2026 07:28:00 GMT"):
        assert server.http.get(url, headers={"Range": "bytes=10-", "If-Range": other}).status_code == 200


@pytest.mark.parametrize("wrap", ["{}", "W/{}", '"other", {}', "*"])
def test_who_has_the_file_already_gets_304(server: Server, url: str, wrap: str) -> None:
    etag = server.http.head(url).headers["etag"]
    for method in ("GET", "HEAD"):
        response = server.http.request(method, url, headers={"If-None-Match": wrap.format(etag), "Range": "bytes=0-1"})
        assert response.status_code == 304
        assert response.headers["etag"] == etag
        assert response.content == b""


def test_who_has_another_file_gets_this_one(server: Server, url: str) -> None:
    assert server.http.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_bytes_that_are_gone_are_a_problem_not_a_trace(server: Server, problem: Problem) -> None:
    dataset = server.upload(b"date,a\n2026-01-01,1\n2026-01-02,2\n2026-01-03,3\n2026-01-04,4\n")
    for path in server.artifacts.root.rglob("art_*"):
        if hashlib.sha256(path.read_bytes()).hexdigest() == dataset["sha256"]:
            path.unlink()
    problem(server.http.get(f"/v1/datasets/{dataset['id']}/content"), 503, "storage_unavailable")


def test_a_download_of_a_deleted_checkpoint_is_404(server: Server, best_checkpoint: Path, problem: Problem) -> None:
    lease = server.claim(server.queue()["id"])
    checkpoint_id = server.checkpoint(lease, 1, best_checkpoint)
    assert server.http.delete(f"/v1/checkpoints/{checkpoint_id}").status_code == 204
    problem(server.http.get(f"/v1/checkpoints/{checkpoint_id}/content"), 404, "not_found")
    problem(server.http.delete(f"/v1/checkpoints/{checkpoint_id}"), 404, "not_found")
    server.end(lease)
