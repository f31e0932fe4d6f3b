"""A small pool of child processes for audits and forecasts, limited in memory and time."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog

import api
from api.offload_protocol import OUT_OF_MEMORY_EXIT, OffloadKind
from jobstore.settings import Settings
from pals_core.errors import Problem

_log = structlog.get_logger(__name__)

# Nothing else of this process's environment reaches a child: no database address, no password.
ALLOWED_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "TZDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
START_SECONDS = 120.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_WAITING_FORECASTS = 32
# A child that grew beyond this is replaced after its request rather than kept.
KEEP_BELOW_BYTES = 1536 * 1024 * 1024


class OffloadCause(StrEnum):
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    BUSY = "busy"
    CLOSED = "closed"


class OffloadFailed(Exception):
    """The child gave no answer; `cause` says why."""

    def __init__(self, cause: OffloadCause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class OffloadRefused(Exception):
    """The child found the request wrong; as the `PalsError` it raised."""

    def __init__(self, code: str, message: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.problems = problems


class _Child:
    """One child process, which answers one request at a time."""

    def __init__(self, kind: OffloadKind, memory_bytes: int) -> None:
        environment = {name: os.environ[name] for name in ALLOWED_VARIABLES if name in os.environ}
        # The packages are found where this process found them, whatever the working directory.
        environment["PYTHONPATH"] = str(Path(api.__path__[0]).resolve().parent)
        if kind is OffloadKind.AUDIT:
            # Each thread reserves address space, which an audit's memory limit counts.
            environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        self._memory_bytes = memory_bytes
        self._buffer = b""
        self._process = subprocess.Popen(  # noqa: S603 (a fixed program; the arguments are an enum and a number)
            [sys.executable, "-P", "-m", "api.offload_child", kind, str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
            start_new_session=True,
        )
        self.resident_bytes = 0
        self._started = False

    def ask(self, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises OffloadFailed and OffloadRefused."""
        if not self._started:
            self._receive(START_SECONDS)
            self._started = True
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(arguments).encode() + b"\n")
        except OSError:
            raise self._died() from None
        reply = self._receive(seconds)
        self.resident_bytes = reply["resident_bytes"]
        if "error" in reply:
            error = reply["error"]
            raise OffloadRefused(error["code"], error["message"], tuple(Problem(**item) for item in error["problems"]))
        result: dict[str, Any] = reply["result"]
        return result

    def _receive(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise OffloadFailed(OffloadCause.TIMEOUT, f"it took longer than the {seconds:g} s allowed")
                data = os.read(self._process.stdout.fileno(), 1024 * 1024)
                if not data:
                    raise self._died()
                self._buffer += data
                if len(self._buffer) > MAX_ANSWER_BYTES:
                    raise OffloadFailed(OffloadCause.OUT_OF_MEMORY, f"the answer exceeds {MAX_ANSWER_BYTES} bytes")
        line, _, self._buffer = self._buffer.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _died(self) -> OffloadFailed:
        status = self._process.wait()
        if status == OUT_OF_MEMORY_EXIT:
            text = f"it needs more than the {self._memory_bytes // 1024**2} MiB of memory allowed"
            return OffloadFailed(OffloadCause.OUT_OF_MEMORY, text)
        return OffloadFailed(OffloadCause.CRASHED, f"its process ended unexpectedly (exit status {status})")

    def kill(self) -> None:
        """End the process; whoever waits for its answer learns that it died."""
        self._process.kill()

    def stop(self) -> None:
        """End the process, which nobody waits for, and free its pipes."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._process.wait()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None


def _closed() -> OffloadFailed:
    return OffloadFailed(OffloadCause.CLOSED, "the service is shutting down")


class _Lane:
    """The children of one kind, started when needed and kept warm."""

    def __init__(self, kind: OffloadKind, children: int, memory_bytes: int, seconds: float) -> None:
        self._kind = kind
        self._memory_bytes = memory_bytes
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(children, thread_name_prefix=f"offload-{kind}")
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._closed = False
        self.waiting = 0

    def submit(self, arguments: dict[str, Any]) -> Future[dict[str, Any]]:
        with self._lock:
            if self._closed:
                raise _closed()
            self.waiting += 1
            return self._threads.submit(self._ask, arguments)

    def _ask(self, arguments: dict[str, Any]) -> dict[str, Any]:
        child, is_fresh = self._take()
        try:
            return self._ask_child(child, arguments)
        except OffloadFailed as error:
            # A kept child may have died of something else than this request: a fresh one decides.
            if is_fresh or error.cause is not OffloadCause.CRASHED:
                raise
        return self._ask_child(self._start(), arguments)

    def _ask_child(self, child: _Child, arguments: dict[str, Any]) -> dict[str, Any]:
        keep = True
        try:
            return child.ask(arguments, self._seconds)
        except OffloadFailed as error:
            keep = False
            if self._closed:
                raise _closed() from None
            _log.warning("offload_failed", kind=self._kind, cause=error.cause, reason=str(error))
            raise
        finally:
            self._give_back(child, keep=keep and child.resident_bytes < KEEP_BELOW_BYTES)

    def _take(self) -> tuple[_Child, bool]:
        """A kept child, or a fresh one and True."""
        with self._lock:
            self.waiting -= 1
            while self._idle and not self._closed:
                child = self._idle.pop()
                if child.alive:
                    self._busy.add(child)
                    return child, False
                child.stop()
        return self._start(), True

    def _start(self) -> _Child:
        with self._lock:
            if self._closed:
                raise _closed()
            child = _Child(self._kind, self._memory_bytes)
            self._busy.add(child)
            return child

    def _give_back(self, child: _Child, *, keep: bool) -> None:
        with self._lock:
            self._busy.discard(child)
            if keep and not self._closed:
                self._idle.append(child)
                return
        child.stop()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for child in self._busy:
                child.kill()
        for child in idle:
            child.stop()
        self._threads.shutdown(cancel_futures=True)


class OffloadPool:
    """Audits and forecasts, each with children of their own, so that neither waits for the other."""

    def __init__(self, settings: Settings) -> None:
        audits = max(1, settings.offload_processes // 2)
        forecasts = max(1, settings.offload_processes - audits)
        self._audits = _Lane(OffloadKind.AUDIT, audits, settings.audit_memory_bytes, settings.audit_seconds)
        self._forecasts = _Lane(
            OffloadKind.FORECAST, forecasts, settings.forecast_memory_bytes, settings.forecast_seconds
        )

    def audit(self, path: Path) -> Future[dict[str, Any]]:
        """Audit a stored table; the result is a `TableProfile` as JSON."""
        return self._audits.submit({"path": str(path)})

    def forecast(self, arguments: dict[str, Any]) -> Future[dict[str, Any]]:
        """Forecast with a stored checkpoint. Raises OffloadFailed when too many wait already."""
        if self._forecasts.waiting >= MAX_WAITING_FORECASTS:
            raise OffloadFailed(OffloadCause.BUSY, f"{MAX_WAITING_FORECASTS} forecasts wait already; try again soon")
        return self._forecasts.submit(arguments)

    def close(self) -> None:
        """Stop every child; requests that still wait fail as closed."""
        self._audits.close()
        self._forecasts.close()
