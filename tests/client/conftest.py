"""The real API to talk to, and a scripted server that misbehaves on purpose."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jobstore import schema
from jobstore.artifacts import new_artifact
from jobstore.checkpoints import NewCheckpoint, NewEvaluation
from jobstore.database import Database, open_database
from jobstore.events import EventType, NewEvent
from jobstore.leases import Lease, Report, claim_next, finish, record
from jobstore.lifecycle import JobStatus
from jobstore.metrics import Point
from jobstore.settings import Settings
from jobstore.storage import ArtifactFolder, StoredBlob
from pals_client import Client, Retries

HASTY = Retries(attempts=4, first_pause_seconds=0.001, longest_pause_seconds=0.01)


# --- a server that does what the test says ---------------------------------------------------------

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Request:
    """What the scripted server was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Script:
    """The answers to give, one per request, and the requests that came."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)


def answer(status: int = 200, body: bytes = b"{}", *, content_type: str = "application/json", **headers: str) -> Answer:
    """A whole answer."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", content_type)
        if status != 204:
            handler.send_header("Content-Length", str(len(body)))
        # Not to be used again: whether its end comes before the next request would be left to chance.
        handler.send_header("Connection", "close")
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def cut(body: bytes, *, promised: int, status: int = 200, **headers: str) -> Answer:
    """An answer whose connection breaks after `body`, before the `promised` bytes."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(promised))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)
        handler.wfile.flush()
        hang_up(handler)

    return send


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """No answer at all."""
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def script() -> Iterator[Script]:
    """A server on loopback; append to `answers` what it is to do."""
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            script.requests.append(Request(self.command, self.path, headers, body))
            self.close_connection = True
            script.answers.pop(0)(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield script
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def scripted_client(script: Script) -> Iterator[Client]:
    with Client(script.url, retries=HASTY) as client:
        yield client


# --- the real API ----------------------------------------------------------------------------------


COST = {
    "layers": {"trend.weight": {"shape": [7, 14], "dtype": "float32", "active": 49, "flops_dense": 392, "bytes": 209}},
    "products": [{"module": "attention", "kind": "matrix", "flops": 8}],
}


@dataclass
class Service:
    """The API on a port of its own; the test plays the worker."""

    settings: Settings
    database: Database
    artifacts: ArtifactFolder
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Run `pals api` while the block runs."""
        environment = {**os.environ, "PALS_DATA_DIR": str(self.settings.root), "PALS_PORT": str(self.port)}
        with (self.settings.root / "api.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "api"],
                env=environment,
                cwd=Path(__file__).resolve().parents[2],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            assert self.url.encode() in said, (self.settings.root / "api.log").read_text()
            yield
        finally:
            process.terminate()
            process.stdout.close()
            process.wait(30)

    def claim(self) -> Lease:
        with self.database.write() as session:
            lease = claim_next(session, "wrk_test", ["cpu", "auto"], lease_seconds=600)
        assert lease is not None
        return lease

    def report(self, lease: Lease, number: int, *messages: str, points: tuple[Point, ...] = ()) -> JobStatus:
        events = [NewEvent(EventType.MESSAGE, message) for message in messages]
        with self.database.write() as session:
            return record(session, lease, Report(number, events=events, points=points))

    def save(self, lease: Lease, number: int, content: bytes, evaluation: bytes | None = None) -> None:
        """Publish `content` as the job's best and last checkpoint, and its evaluation."""
        evaluated = None if evaluation is None else NewEvaluation(*self._put(evaluation))
        new = NewCheckpoint(*self._put(content), 10, 1, True, True, 0.6, 0.1, None, COST, evaluated)
        with self.database.write() as session:
            record(session, lease, Report(number, checkpoint=new))

    def _put(self, content: bytes) -> tuple[str, StoredBlob]:
        with self.database.write() as session:
            artifact = new_artifact(session, "default", "tests")
        with self.artifacts.writer(artifact.key) as writer:
            writer.write(content)
            return artifact.id, writer.commit()

    def end(self, lease: Lease, to: JobStatus = JobStatus.SUCCEEDED) -> None:
        with self.database.write() as session:
            finish(session, lease, to, message=str(to), runtime_seconds=1.0, result=None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def new_service(folder: Path) -> Iterator[Service]:
    """A migrated job store for an API of its own, which does not run yet."""
    settings = Settings(data_dir=folder / "data", offload_processes=1)
    database = open_database(settings)
    schema.upgrade(database)
    yield Service(settings, database, ArtifactFolder(settings.resolved_artifacts_url, new=True), free_port())
    database.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service that the test starts and stops itself."""
    with new_service(tmp_path) as service:
        yield service


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service."""
    with new_service(tmp_path_factory.mktemp("service")) as service, service.listening():
        yield service


@pytest.fixture
def client(api: Service) -> Iterator[Client]:
    with Client(api.url, retries=HASTY) as client:
        yield client


def daily_csv(rows: int) -> bytes:
    """A daily series of two columns."""
    days = (date(2020, 1, 1) + timedelta(days=row) for row in range(rows))
    lines = [f"{day.isoformat()},{row % 7 + row / 100},{row % 30}" for row, day in enumerate(days)]
    return "\n".join(["date,load,price", *lines, ""]).encode()


@pytest.fixture(scope="session")
def csv() -> bytes:
    return daily_csv(200)


@pytest.fixture
def csv_file(csv: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "load.csv"
    path.write_bytes(csv)
    return path
