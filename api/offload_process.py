"""One child process for work that the API process must not do, and how it may fail."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import api
from api.offload_protocol import OUT_OF_MEMORY_EXIT, OffloadKind
from pals_core.errors import Problem
from pals_core.openmp import waiting_of

# Nothing else of this process's environment reaches a child: no database address, no password.
ALLOWED_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "TZDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
START_SECONDS = 120.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024


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


@dataclass(frozen=True)
class ChildLimits:
    """What a child may take."""

    seconds: float  # for one request
    memory_bytes: int  # resident, or address space of an audit
    cache_bytes: int = 0  # of loaded forecasters it keeps
    keep_below_bytes: int = 0  # one that grew beyond is replaced after its request rather than kept


class OffloadProcess:
    """One child process, which answers one request at a time."""

    def __init__(self, kind: OffloadKind, limits: ChildLimits) -> None:
        environment = {name: os.environ[name] for name in ALLOWED_VARIABLES if name in os.environ}
        # The packages are found where this process found them, whatever the working directory.
        environment["PYTHONPATH"] = str(Path(api.__path__[0]).resolve().parent)
        if kind is OffloadKind.AUDIT:
            # Each thread reserves address space, which an audit's memory limit counts.
            environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        else:
            environment |= waiting_of(os.environ)
        self._limits = limits
        self._buffer = b""
        self._process = subprocess.Popen(  # noqa: S603 (a fixed program; the arguments are an enum and numbers)
            [
                *(sys.executable, "-P", "-m", "api.offload_child"),
                *(kind, str(limits.memory_bytes), str(limits.cache_bytes)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
            start_new_session=True,
        )
        self.resident_bytes = 0
        self._started = False

    def ask(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for its answer. Raises OffloadFailed and OffloadRefused."""
        if not self._started:
            self._receive(START_SECONDS)
            self._started = True
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(arguments).encode() + b"\n")
        except OSError:
            raise self._died() from None
        reply = self._receive(self._limits.seconds)
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
            text = f"it needs more than the {self._limits.memory_bytes // 1024**2} MiB of memory allowed"
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
