from __future__ import annotations

import gzip
import io
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select

from api.multipart import FormReader
from jobstore.storage.folder import MARK
from jobstore.tables import Artifact
from pals_core.data.table import Table
from tests.api.conftest import Problem, Server, serving, table_frame


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stored_files(server: Server) -> set[Path]:
    return {path for path in server.artifacts.root.rglob("*") if path.is_file() and path.name != MARK}


def pending(server: Server) -> int:
    with server.database.read() as session:
        return len(session.scalars(select(Artifact).where(Artifact.status == "pending")).all())


def test_a_raw_upload_is_audited_and_comes_back_unchanged(either: Server) -> None:
    server = either
    dataset = server.upload(name="waves")
    assert dataset["name"] == "waves"
    assert dataset["media_type"] == "text/csv"
    assert dataset["bytes"] == len(server.table)
    assert dataset["error"] is None
    profile = dataset["profile"]
    assert (profile["layout"], profile["rows"], profile["steps"], profile["frequency"]) == ("wide", 260, 260, "D")
    assert profile["columns"] == ["calm", "rising", "noise"]
    assert profile["findings"] == []
    assert dataset["created_at"].endswith("Z")
    content = server.http.get(f"/v1/datasets/{dataset['id']}/content")
    assert content.content == server.table
    assert content.headers["etag"] == f'"{dataset["sha256"]}"'
    assert 'filename="waves.csv"' in content.headers["content-disposition"]


def test_a_form_upload_is_named_after_its_file(either: Server) -> None:
    server = either
    response = server.http.post("/v1/datasets", files={"file": ("C:\\data\\waves.csv", server.table)})
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/datasets/{response.json()['id']}"
    assert response.json()["name"] == "waves.csv"
    assert server.http.get(response.headers["location"]).json() == response.json()
    assert server.http.get(response.headers["location"] + "/content").content == server.table


@pytest.mark.parametrize(("query", "part", "name"), [("?name=q", None, "q"), ("", "p", "p"), ("?name=q", "p", "q")])
def test_a_name_that_is_given_beats_the_files(server: Server, query: str, part: str | None, name: str) -> None:
    response = server.http.post(
        f"/v1/datasets{query}", files={"file": ("waves.csv", server.table)}, data={"name": part} if part else {}
    )
    assert response.json()["name"] == name


def test_gzip_and_parquet_are_told_by_content(server: Server, series: Table) -> None:
    parquet = io.BytesIO()
    table_frame(series).rename_axis("date").reset_index().to_parquet(parquet)
    for content, media_type in (
        (gzip.compress(server.table), "application/gzip"),
        (parquet.getvalue(), "application/vnd.apache.parquet"),
    ):
        dataset = server.upload(content)
        assert dataset["media_type"] == media_type
        assert dataset["profile"]["steps"] == 260
    encoded = server.http.post(
        "/v1/datasets?name=x",
        content=gzip.compress(server.table),
        headers={"Content-Type": "text/csv", "Content-Encoding": "gzip"},
    )
    assert encoded.json()["media_type"] == "application/gzip"


def test_a_body_in_chunks_without_a_length_is_the_same(server: Server) -> None:
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(server.table), 1000):
            yield server.table[start : start + 1000]

    response = server.http.post("/v1/datasets?name=x", content=pieces(), headers={"Content-Type": "text/csv"})
    assert response.status_code == 201
    assert response.json()["bytes"] == len(server.table)


def test_every_split_of_a_form_gives_the_same_file(server: Server) -> None:
    body = (
        b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\nContent-Type: text/csv\r\n\r\n'
        + server.table[:300]
        + b"\r\n--frontie\r\n--\r\n"
        + b"\r\n--frontier--\r\n"
    )
    expected = server.table[:300] + b"\r\n--frontie\r\n--\r\n"
    for size in (1, 2, 3, 7, 64, len(body)):
        form = FormReader("multipart/form-data; boundary=frontier")
        found = b"".join(form.feed(body[start : start + size]) for start in range(0, len(body), size))
        form.finish()
        assert found == expected
        assert form.file_name == "a.csv"


def test_what_is_no_table_is_refused_and_leaves_nothing(either: Server, problem: Problem) -> None:
    server = either
    listed = server.http.get("/v1/datasets").json()
    for content in (
        b"",
        b"\x00\x01\x02" * 1000,
        b"%PDF-1.7 no table",
        b"a,b\nx,y\nz,w\n",
        b"PAR1garbage",
        b"\x1f\x8bxx",
    ):
        response = server.http.post("/v1/datasets?name=x", content=content, headers={"Content-Type": "text/csv"})
        problem(response, 422, "invalid_table")
    assert server.http.get("/v1/datasets").json() == listed


def test_what_can_be_cured_is_a_finding(server: Server) -> None:
    holed = server.table.splitlines(keepends=True)
    del holed[50]
    dataset = server.upload(b"".join(holed))
    assert [finding["code"] for finding in dataset["profile"]["findings"]] == ["missing_times"]


def test_lists_go_page_by_page_newest_first(either: Server) -> None:
    server = either
    ids = [server.upload()["id"] for _ in range(3)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = server.http.get("/v1/datasets", params=query).json()
        seen += [dataset["id"] for dataset in page["data"]]
        assert page["has_more"] == (page["next"] is not None)
        if not page["has_more"]:
            break
        query["after"] = page["next"]
    assert seen[:3] == ids[::-1]
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen))


def test_a_deleted_dataset_is_gone_and_its_bytes_too(server: Server, problem: Problem) -> None:
    dataset = server.upload()
    url = f"/v1/datasets/{dataset['id']}"
    assert server.http.delete(url).status_code == 204
    problem(server.http.get(url), 404, "not_found")
    problem(server.http.get(url + "/content"), 404, "not_found")
    problem(server.http.delete(url), 404, "not_found")
    assert dataset["id"] not in server.http.get("/v1/datasets").text


def test_of_two_deletions_at_once_one_finds_it(either: Server) -> None:
    server = either
    for _ in range(5):
        url = f"/v1/datasets/{server.upload()['id']}"
        with ThreadPoolExecutor(4) as threads:
            answers = [answer.status_code for answer in threads.map(server.http.delete, [url] * 4)]
        assert sorted(answers) == [204, 404, 404, 404]


def test_a_dataset_that_an_unfinished_job_needs_stays(either: Server, problem: Problem) -> None:
    server = either
    dataset = server.upload()
    job = server.queue(dataset_id=dataset["id"])
    url = f"/v1/datasets/{dataset['id']}"
    assert job["id"] in problem(server.http.delete(url), 409, "dataset_in_use")["detail"]
    server.http.post(f"/v1/jobs/{job['id']}/cancel")
    assert server.http.delete(url).status_code == 204
    assert server.http.get(f"/v1/jobs/{job['id']}").json()["dataset_id"] == dataset["id"]


@pytest.fixture(scope="module")
def tight_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An API that takes uploads up to 1 MiB, and whose files may not grow beyond 2 MiB."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20)); "
    folder = tmp_path_factory.mktemp("tight")
    with serving(folder, {"PALS_MAX_UPLOAD_BYTES": str(1 << 20)}, before=limit) as running:
        yield running


@pytest.fixture(scope="module")
def full_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An API whose disk takes no file beyond 2 MiB."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20)); "
    with serving(tmp_path_factory.mktemp("full"), before=limit) as running:
        yield running


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("form", [False, True])
def test_an_upload_beyond_the_limit_is_refused_with_the_limit(
    tight_server: Server, problem: Problem, chunked: bool, form: bool
) -> None:
    server = tight_server
    content = b"date,a\n" + b"2026-01-01,1\n" * 200_000
    headers = {"Content-Type": "text/csv"}
    if form:
        content = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + content + b"\r\n--x--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
    body: Any = (
        iter([content[start : start + 65536] for start in range(0, len(content), 65536)]) if chunked else content
    )
    response = server.http.post("/v1/datasets?name=x", content=body, headers=headers)
    assert str(1 << 20) in problem(response, 413, "upload_too_large")["detail"]
    assert server.http.get("/v1/datasets").json()["data"] == []
    assert stored_files(server) == set()


def test_a_full_disk_is_507_and_leaves_nothing(full_server: Server, problem: Problem) -> None:
    server = full_server
    content = b"date,a\n" + b"2026-01-01,1\n" * 400_000
    response = server.http.post("/v1/datasets?name=x", content=content, headers={"Content-Type": "text/csv"})
    problem(response, 507, "storage_full")
    assert server.http.get("/v1/datasets").json()["data"] == []
    assert stored_files(server) == set()


def test_an_upload_that_took_longer_than_the_sweep_waits_leaves_nothing(server: Server) -> None:
    before = stored_files(server)
    url = server.http.base_url
    with socket.create_connection((url.host, url.port or 80)) as connection:
        head = "POST /v1/datasets?name=x HTTP/1.0\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
        connection.sendall(f"{head}Content-Length: {len(server.table)}\r\n\r\n".encode() + server.table[:100])
        wait_until(lambda: pending(server) == 1)
        with server.database.write() as session:
            session.execute(delete(Artifact).where(Artifact.status == "pending"))
        connection.sendall(server.table[100:])
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert b" 503 " in answer.partition(b"\r\n")[0]
    assert b"storage_unavailable" in answer
    assert stored_files(server) <= before


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Type: text/csv\r\nContent-Length: 1000000\r\n\r\ndate,a\n2026-01-01,1\n",
        b"Content-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ndate,a\n\r\n",
        b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000\r\n\r\n"
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ndate,a\n2026-01-01,1\n',
    ],
)
def test_a_client_that_leaves_midway_leaves_nothing_behind(server: Server, head: bytes) -> None:
    before, listed = stored_files(server), server.http.get("/v1/datasets").json()
    url = server.http.base_url
    with socket.create_connection((url.host, url.port or 80)) as connection:
        connection.sendall(b"POST /v1/datasets?name=x HTTP/1.1\r\nHost: localhost\r\n" + head)
        wait_until(lambda: pending(server) == 1)
    wait_until(lambda: pending(server) == 0)
    assert stored_files(server) <= before
    assert server.http.get("/v1/datasets").json() == listed
