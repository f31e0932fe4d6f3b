"""Keeps one server alive exactly as long as the process that asked for it, then removes its folder.

Run as a program with an `Errand` as one JSON line on standard input. The end of that input is the order to stop; it
comes when the owner closes it and also when the owner is killed, so a killed test run leaves neither server nor folder.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypedDict

POLL_SECONDS = 0.2
STOP_SECONDS = 10.0
LOG_TAIL_BYTES = 4000


class Errand(TypedDict):
    """Commands to run in turn, the last being the server; as whom (None: as now); the folder to remove at the end."""

    commands: list[list[str]]
    folder: str
    uid: int | None
    gid: int | None


class Asked(Exception):
    """Somebody wants the server gone."""


def stop_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    raise Asked


def wait_for(process: subprocess.Popen[bytes], owner: int) -> int:
    """Return the exit status of the process; raises `Asked` when the input ends or the owner is gone first."""
    while process.poll() is None:
        readable, _, _ = select.select([0], [], [], POLL_SECONDS)
        # A fork of the owner may hold the other end of the pipe open after the owner's death.
        if (readable and not os.read(0, 1)) or os.getppid() != owner:
            raise Asked
    return process.returncode


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process, politely first: PostgreSQL and Redis both take SIGINT as the order for a quick shutdown."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def guard(errand: Errand, owner: int) -> int:
    """Run the errand; 0 when the server ran until it was asked to stop, 1 with its last words when it did not."""
    folder = Path(errand["folder"])
    started: list[subprocess.Popen[bytes]] = []
    complaint = b""
    try:
        with (folder / "log").open("ab") as log:
            for command in errand["commands"]:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                    user=errand["uid"],
                    group=errand["gid"],
                    extra_groups=None if errand["uid"] is None else [],
                )
                started.append(process)
                if wait_for(process, owner) != 0:
                    break
        complaint = f"{command[0]} ended with status {process.returncode}\n".encode()
        complaint += (folder / "log").read_bytes()[-LOG_TAIL_BYTES:]
    except OSError as error:
        complaint = str(error).encode()
    except Asked:
        complaint = b""
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for process in started:
            stop(process)
        shutil.rmtree(folder, ignore_errors=True)
    sys.stderr.buffer.write(complaint)
    return 1 if complaint else 0


def main() -> int:
    owner = os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop_on_signal)
    # Unbuffered, so that nothing read ahead is missed by `select`.
    with open(0, "rb", buffering=0, closefd=False) as line:
        errand: Errand = json.loads(line.readline())
    return guard(errand, owner)


if __name__ == "__main__":
    sys.exit(main())
