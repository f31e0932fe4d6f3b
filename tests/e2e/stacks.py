"""The two stacks, started with the very commands a user or the compose file starts them with."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

READY_SECONDS = 60.0
PALS = [sys.executable, "-m", "cli.main"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Service:
    """A running stack and how to reach it."""

    name: str
    http: httpx.Client
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]]

    def stream(self, job_id: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """The job's events over SSE, until the service ends the stream."""
        headers = {"Last-Event-ID": str(after)} if after else {}
        with self.http.stream("GET", f"/v1/jobs/{job_id}/events/stream", headers=headers, timeout=120) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                if not line:
                    if "data" in fields:
                        event = json.loads(fields["data"])
                        assert fields["id"] == str(event["id"])
                        yield event
                    fields = {}
                elif not line.startswith(":"):
                    name, _, value = line.partition(": ")
                    fields[name] = value

    def wait(self, job_id: str, *statuses: str, seconds: float = 120) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.http.get(f"/v1/jobs/{job_id}").json()
            if job["status"] in statuses:
                return job
            assert job["status"] not in {"succeeded", "failed", "cancelled"}, job
            time.sleep(0.1)
        raise TimeoutError(f"{job_id} did not become {statuses} in {seconds} s")

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        response = self.http.post(
            "/v1/datasets", params={"name": name}, content=content, headers={"Content-Type": "text/csv"}, timeout=120
        )
        assert response.status_code in {201, 202}, response.text
        dataset: dict[str, Any] = response.json()
        while dataset["status"] == "auditing":
            time.sleep(0.1)
            dataset = self.http.get(f"/v1/datasets/{dataset['id']}").json()
        return dataset


def _stop(processes: dict[str, subprocess.Popen[bytes]]) -> None:
    for process in processes.values():
        process.send_signal(signal.SIGTERM)
    for name, process in processes.items():
        try:
            code = process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            raise TimeoutError(f"{name} did not stop within 40 s of SIGTERM") from None
        assert code in {0, -signal.SIGTERM}, f"{name} ended with status {code}"


@contextmanager
def _running(name: str, commands: dict[str, list[str]], environment: dict[str, str], logs: Path) -> Iterator[Service]:
    """Start `commands`, wait until the service says that it is ready, stop them at the end."""
    full = {**os.environ, **environment}
    processes: dict[str, subprocess.Popen[bytes]] = {}
    base_url = f"http://127.0.0.1:{environment['PALS_PORT']}"
    try:
        for part, command in commands.items():
            with (logs / f"{part}.log").open("wb") as log:
                processes[part] = subprocess.Popen(command, env=full, stdout=log, stderr=log, start_new_session=True)
        with httpx.Client(base_url=base_url, timeout=30) as http:
            deadline = time.monotonic() + READY_SECONDS
            while True:
                try:
                    ready = http.get("/readyz")
                    if ready.status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                if time.monotonic() > deadline or any(p.poll() is not None for p in processes.values()):
                    said = "\n".join(f"{part}: {(logs / f'{part}.log').read_text()[-3000:]}" for part in commands)
                    raise TimeoutError(f"the service is not ready:\n{said}")
                time.sleep(0.1)
            yield Service(name, http, environment, processes)
    finally:
        _stop(processes)


@contextmanager
def embedded(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Service]:
    """`pals serve`: SQLite, messages as files, one worker; and, unless told otherwise, artifacts in a folder."""
    environment = {"PALS_DATA_DIR": str(folder / "data"), "PALS_PORT": str(free_port()), **(settings or {})}
    with _running("embedded", {"serve": [*PALS, "serve"]}, environment, folder) as service:
        yield service


@contextmanager
def production(folder: Path, database_url: str, broker_url: str) -> Iterator[Service]:
    """`pals migrate`, then `pals api` and `pals worker`, on PostgreSQL and Redis."""
    environment = {
        "PALS_DATA_DIR": str(folder / "data"),
        "PALS_PORT": str(free_port()),
        "PALS_DATABASE_URL": database_url,
        "PALS_BROKER_URL": broker_url,
        "PALS_ARTIFACTS_URL": (folder / "artifacts").as_uri(),
    }
    subprocess.run([*PALS, "migrate"], env={**os.environ, **environment}, check=True, timeout=60)
    commands = {"api": [*PALS, "api"], "worker": [*PALS, "worker"]}
    with _running("production", commands, environment, folder) as service:
        yield service
