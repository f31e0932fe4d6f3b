from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from api.hosts import host_name
from tests.api.conftest import Problem, Server, serving


@pytest.fixture(scope="module")
def named_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("named"), {"PALS_ALLOWED_HOSTS": '["pals.example.org"]'}) as running:
        yield running


@pytest.mark.parametrize(
    ("authority", "name"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST:8000", "localhost"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]:8000", "::1"),
        ("[::1]", "::1"),
        ("example.org.", "example.org"),
        ("example.org.:80", "example.org"),
        ("", ""),
        ("localhost:evil", "localhost:evil"),
        ("localhost:80:80", "localhost:80:80"),
    ],
)
def test_the_name_is_taken_out_of_a_host_header(authority: str, name: str) -> None:
    assert host_name(authority) == name


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "127.0.0.1", "[::1]:80", "LocalHost:80", "localhost."])
def test_loopback_names_are_its_own(server: Server, host: str) -> None:
    assert server.http.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "evil.example:8000", "0.0.0.0", "[::2]", ""]
)
def test_other_names_are_misdirected(server: Server, problem: Problem, host: str) -> None:
    problem(server.http.get("/healthz", headers={"Host": host}), 421, "misdirected_request")


def test_allowed_hosts_are_its_own_too(named_server: Server, problem: Problem) -> None:
    http = named_server.http
    assert http.get("/healthz", headers={"Host": "PALS.example.org:443"}).status_code == 200
    problem(http.get("/healthz", headers={"Host": "example.org"}), 421, "misdirected_request")
    same = {"Host": "pals.example.org", "Origin": "https://pals.example.org", "Content-Type": "text/csv"}
    problem(http.post("/v1/datasets", headers=same, content=b"x"), 422, "invalid_table")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example", "Content-Type": "text/plain"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/datasets?name=x"), ("POST", "/v1/jobs"), ("DELETE", "/v1/jobs/job_0"), ("OPTIONS", "/v1/jobs")],
)
def test_other_sites_pages_may_change_nothing(
    server: Server, problem: Problem, method: str, path: str, headers: dict[str, str]
) -> None:
    problem(server.http.request(method, path, headers=headers, content=server.table), 403, "foreign_origin")


def test_own_pages_may(server: Server) -> None:
    base = server.http.base_url
    headers = {"Origin": f"http://{base.host}:{base.port}", "Sec-Fetch-Site": "same-origin", "Content-Type": "text/csv"}
    response = server.http.post("/v1/datasets?name=x", headers=headers, content=server.table)
    assert response.status_code == 201


def test_reading_needs_no_origin(server: Server) -> None:
    response = server.http.get("/v1/models", headers={"Origin": "https://evil.example"})
    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_request_without_a_host_is_refused(server: Server) -> None:
    base = server.http.base_url
    with socket.create_connection((base.host, base.port or 80)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = connection.recv(65536)
    assert answer.split()[1] in {b"400", b"421"}
