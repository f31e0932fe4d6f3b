"""A server process of our own in a folder of its own, watched over by a guardian."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.servers import guardian

Server = TypeVar("Server")

START_SECONDS = 30.0
POLL_SECONDS = 0.02
PORT_ATTEMPTS = 3
UNPRIVILEGED_USERS = ("nobody", "postgres")


class ServerUnavailable(Exception):
    """There is no server to be had here; the message says what was looked for and what would help."""


class ServerFailed(Exception):
    """A server that should have started did not; the message carries its last words."""


class PortTaken(ServerFailed):
    """Somebody took the port between our finding it free and the server's listening."""


@dataclass(frozen=True)
class Account:
    """The user a server runs as; None for both numbers means the user who runs the tests."""

    uid: int | None
    gid: int | None


def unprivileged_account() -> Account:
    """Return an account that is not root: PostgreSQL refuses to serve as root."""
    if os.geteuid() != 0:
        return Account(None, None)
    for name in UNPRIVILEGED_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise ServerUnavailable(f"PostgreSQL refuses to run as root, and none of the users {UNPRIVILEGED_USERS} exists")


def open_to_everyone(path: Path) -> bool:
    """Say whether any user may pass through the folder and all its parents."""
    folder = path.resolve()
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in (folder, *folder.parents))


def new_folder(account: Account) -> Path:
    """Make an empty folder that only the account can enter, at a place the account can reach."""
    # macOS hands out a private temporary folder per user, and so may TMPDIR.
    places = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    place = next((place for place in places if account.uid is None or open_to_everyone(place)), None)
    if place is None:
        raise ServerUnavailable(f"no temporary folder that another user may enter among {places}")
    folder = Path(tempfile.mkdtemp(prefix="pals-test-", dir=place))
    if account.uid is not None and account.gid is not None:
        os.chown(folder, account.uid, account.gid)
    return folder


def reachable_copy(installation: Path, folder: Path, account: Account) -> Path:
    """Return the installation, or a copy of it inside `folder` where the account may not reach the original."""
    if account.uid is None or open_to_everyone(installation):
        return installation
    package = installation.parent
    copy = folder / "programs" / package.name / installation.name
    shutil.copytree(installation, copy, symlinks=True)
    # A wheel keeps the shared libraries of its programs beside its package, and the programs look for them there.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / "programs" / libraries.name, symlinks=True)
    return copy


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def on_a_free_port(start: Callable[[int], AbstractContextManager[Server]]) -> Iterator[Server]:
    """Start a server on a free port, and on another one when that was taken meanwhile; raises `PortTaken`."""
    for attempt in range(1, PORT_ATTEMPTS + 1):
        with ExitStack() as stack:
            try:
                server = stack.enter_context(start(free_port()))
            except PortTaken:
                if attempt == PORT_ATTEMPTS:
                    raise
                continue
            yield server
            return


@contextmanager
def running(
    commands: list[list[str]], folder: Path, account: Account, answers: Callable[[], bool]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the commands, the last being the server, until the block ends; enter it when the server answers.

    `folder` belongs to the server and is removed with it. Raises `ServerFailed`.
    """
    errand = guardian.Errand(commands=commands, folder=str(folder), uid=account.uid, gid=account.gid)
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", guardian.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # Out of reach of a Ctrl-C in the terminal and of a kill of the tests' process group.
        start_new_session=True,
    )
    assert guard.stdin is not None
    assert guard.stderr is not None
    try:
        guard.stdin.write(json.dumps(errand).encode() + b"\n")
        guard.stdin.flush()
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if guard.poll() is not None:
                last_words = guard.stderr.read().decode(errors="replace")
                raise (PortTaken if "Address already in use" in last_words else ServerFailed)(last_words)
            if time.monotonic() > deadline:
                raise ServerFailed(f"{commands[-1][0]} did not answer within {START_SECONDS:g} s")
            time.sleep(POLL_SECONDS)
        yield guard
    finally:
        guard.stdin.close()
        guard.wait()
        guard.stderr.close()
