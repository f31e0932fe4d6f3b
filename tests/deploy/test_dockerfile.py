from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import typer.main
import yaml

from cli.main import app
from jobstore.settings import Settings

ROOT = Path(__file__).parents[2]
PORT = Settings.model_fields["port"].default


@pytest.fixture(scope="module")
def dockerfile() -> str:
    """The Dockerfile with continued lines joined."""
    return (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def instruction(dockerfile: str, name: str) -> str:
    """The arguments of the last instruction of that name."""
    found: list[str] = re.findall(rf"^{name} +(.*)$", dockerfile, re.MULTILINE)
    return found[-1].strip()


def test_the_image_runs_a_command_that_exists(dockerfile: str) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

    assert json.loads(instruction(dockerfile, "ENTRYPOINT"))[0] in scripts
    assert json.loads(instruction(dockerfile, "CMD"))[0] in typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_the_settings_baked_into_the_image_exist(dockerfile: str) -> None:
    names = re.findall(r"\bPALS_[A-Z_]+(?==)", dockerfile)

    assert set(names) == {"PALS_HOST", "PALS_DATA_DIR"}
    assert {name.removeprefix("PALS_").lower() for name in names} <= set(Settings.model_fields)


def test_the_image_exposes_the_port_the_api_listens_on(dockerfile: str) -> None:
    assert instruction(dockerfile, "EXPOSE") == str(PORT)


def test_the_image_does_not_run_as_root(dockerfile: str) -> None:
    user = instruction(dockerfile, "USER")

    assert re.search(rf"useradd .*--uid [1-9]\d+ .*\b{user}\b", dockerfile)
    assert dockerfile.index("USER ") > dockerfile.index("RUN useradd")


def test_volumes_are_mounted_where_the_user_of_the_image_may_write(dockerfile: str) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounted = {volume.split(":")[1] for name in ("api", "worker") for volume in services[name]["volumes"]}
    made = re.search(r"install -d -o pals -g pals (.*)$", dockerfile, re.MULTILINE)

    assert made is not None
    assert mounted == set(made[1].split())


def test_every_room_of_the_project_reaches_the_image() -> None:
    allowed = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]

    assert allowed >= {*settings["root_packages"], "pyproject.toml", "requirements.lock", "README.md"}


@contextmanager
def answering(status: int) -> Iterator[tuple[int, list[str]]]:
    """An HTTP server that answers everything with one status; yields its port and the paths it was asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_follows_the_apis_liveness(dockerfile: str, status: int, healthy: bool) -> None:
    found = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", dockerfile, re.MULTILINE)
    assert found is not None
    command = json.loads(found[1])

    with answering(status) as (port, asked):
        checked = subprocess.run(
            [sys.executable, *command[1:]], env=os.environ | {"PALS_PORT": str(port)}, capture_output=True
        )

    assert (checked.returncode == 0) == healthy
    assert asked == ["/healthz"]
    assert str(PORT) in command[2]
