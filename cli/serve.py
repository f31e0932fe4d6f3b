"""The embedded service: the API in this process, one worker beside it that is restarted when it dies."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import typer

from api.server import run as run_api
from cli.refusals import read_settings, told_in_a_line
from jobstore.database import open_database
from jobstore.logs import configure
from jobstore.schema import upgrade

DRAIN_SECONDS = 20.0
RESTART_SECONDS = (1.0, 30.0)
_log = logging.getLogger(__name__)


class WorkerProcess:
    """One `pals worker` that lives as long as this object: restarted when it dies, never left behind."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._process = self._spawn()
        self._thread = threading.Thread(target=self._watch, name="worker", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Let it begin to save its trainings' states and to put its jobs back."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Let it put its jobs back, then end it."""
        self.drain()
        try:
            self._process.wait(DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._thread.join()

    def _spawn(self) -> subprocess.Popen[bytes]:
        # Its own session: Ctrl-C reaches this process alone, which then lets the worker drain. Its
        # standard input is never written to; it ends when this process does, however that happens.
        return subprocess.Popen(
            [sys.executable, "-m", "cli.main", "worker", "--exit-with-parent"],
            stdin=subprocess.PIPE,
            cwd=Path(__file__).resolve().parent.parent,
            start_new_session=True,
        )

    def _watch(self) -> None:
        shortest, longest = RESTART_SECONDS
        pause = shortest
        while True:
            began = time.monotonic()
            code = self._process.wait()
            if time.monotonic() - began > longest:
                pause = shortest  # it worked for a while
            if self._stopping.wait(pause):
                return
            _log.error("the worker ended with status %d; starting another", code)
            pause = min(2 * pause, longest)
            self._process = self._spawn()


@contextmanager
def only_service(folder: Path) -> Iterator[None]:
    """Hold the data folder's lock, or exit and say that another service uses the folder."""
    with told_in_a_line():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        opened = (folder / "lock").open("w")
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            typer.echo(f"another service already runs on {folder}; set PALS_DATA_DIR to use another folder", err=True)
            raise typer.Exit(2) from None
        yield


def serve(*, exit_with_parent: bool = False) -> None:
    """Run until SIGTERM or Ctrl-C; with `exit_with_parent`, also until standard input ends."""
    settings = read_settings()
    configure(settings)
    # uvicorn raises the signal that stopped it once more; left to its default, SIGTERM would end this
    # process before the worker is stopped.
    signal.signal(signal.SIGTERM, _exit)
    if exit_with_parent:
        threading.Thread(target=_watch_parent, name="parent", daemon=True).start()
    with only_service(settings.root):
        os.environ["PALS_DATA_DIR"] = str(settings.root)
        with told_in_a_line():
            database = open_database(settings)
            database.ping()
            upgrade(database)
            database.close()
        worker = WorkerProcess()
        try:
            # Requests may take their time; the trainings are not to wait for them.
            run_api(settings, stopping=worker.drain)
        finally:
            worker.stop()


def _exit(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _watch_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
