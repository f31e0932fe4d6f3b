from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from tests.servers.postgres import from_wheel as postgres_from_wheel
from tests.servers.postgres import installed as postgres_installed
from tests.servers.redis import from_wheel as redis_from_wheel
from tests.servers.redis import installed as redis_installed
from tests.servers.throwaway import Account, PortTaken, ServerFailed, new_folder, on_a_free_port, running

ROOT = Path(__file__).parents[2]
OWNER = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.servers.{kind} import started
with started(Path({program!r})) as server:
    print(getattr(server, "url", server), flush=True)
    time.sleep(600)
"""
PROGRAMS = [
    (kind, program)
    for kind, program in [
        ("postgres", postgres_installed() or postgres_from_wheel()),
        ("redis", redis_installed() or redis_from_wheel()),
    ]
    if program
]


def comes_true(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary folder that every user may enter, which pytest's own is not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize(("kind", "program"), PROGRAMS, ids=[kind for kind, _ in PROGRAMS])
def test_a_killed_owner_leaves_neither_a_server_nor_a_folder(kind: str, program: Path, place: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER.format(root=str(ROOT), kind=kind, program=str(program))],
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(place)},
        start_new_session=True,
    ) as owner:
        assert owner.stdout is not None
        port = urlsplit(owner.stdout.readline().decode().strip()).port
        assert port is not None
        ran = listens(port) and any(place.iterdir())
        os.killpg(owner.pid, signal.SIGKILL)

    assert ran
    assert comes_true(lambda: not listens(port))
    assert comes_true(lambda: not any(place.iterdir()))


def test_a_server_that_cannot_start_says_why() -> None:
    myself = Account(None, None)
    folder = new_folder(myself)
    command = [sys.executable, "-c", "raise SystemExit('the disk is full')"]

    with pytest.raises(ServerFailed, match="the disk is full"), running([command], folder, myself, lambda: False):
        pass

    assert not folder.exists()


def test_a_program_that_does_not_exist_says_so() -> None:
    myself = Account(None, None)
    folder = new_folder(myself)

    with (
        pytest.raises(ServerFailed, match="No such file"),
        running([["/nowhere/redis-server"]], folder, myself, lambda: False),
    ):
        pass

    assert not folder.exists()


def test_the_server_is_not_started_when_its_preparation_fails(tmp_path: Path) -> None:
    myself = Account(None, None)
    folder = new_folder(myself)
    prepare = [sys.executable, "-c", "raise SystemExit('no preparation')"]
    serve = [sys.executable, "-c", f"open({str(tmp_path / 'served')!r}, 'w')"]

    with (
        pytest.raises(ServerFailed, match="no preparation"),
        running([prepare, serve], folder, myself, lambda: False),
    ):
        pass

    assert not (tmp_path / "served").exists()


def test_a_taken_port_is_followed_by_another(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        taken = int(client.connection_pool.connection_kwargs["port"])
    tried: list[int] = []
    script = "import socket, sys; socket.create_server(('127.0.0.1', int(sys.argv[1]))); input()"

    def start(port: int) -> AbstractContextManager[object]:
        chosen = port if tried else taken
        tried.append(chosen)
        myself = Account(None, None)
        command = [sys.executable, "-c", script, str(chosen)]
        return running([command], new_folder(myself), myself, lambda: chosen != taken)

    with on_a_free_port(start):
        pass

    assert tried[0] == taken
    assert len(tried) == 2


def test_a_port_that_stays_taken_is_an_error() -> None:
    tried: list[int] = []
    script = "import sys; sys.exit('Address already in use')"

    def start(port: int) -> AbstractContextManager[object]:
        tried.append(port)
        myself = Account(None, None)
        return running([[sys.executable, "-c", script]], new_folder(myself), myself, lambda: False)

    with pytest.raises(PortTaken), on_a_free_port(start):
        pass

    assert len(tried) == 3
