"""A training process as its supervisor sees it: start, send, hear, kill."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ValidationError

from pals_core.heap import pages_of
from pals_core.openmp import waiting_of
from worker.protocol import FromChild, Ready

STDERR_TAIL_LINES = 40
# What a training needs of the environment; everything else, credentials above all, stays out.
INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TMPDIR",
    "TZ",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "CUDA_HOME",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
)
_log = logging.getLogger(__name__)


class CannotStart(Exception):
    """The host has no process, thread, file or memory left for a training process just now."""


class TrainingProcess:
    """One child: its own session (so that all it starts can be killed), pipes, and reader threads."""

    def __init__(self, visible_gpus: str | None = None) -> None:
        """Start it; `visible_gpus` is its CUDA_VISIBLE_DEVICES, None: ours. Raises CannotStart."""
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment |= waiting_of(os.environ) | pages_of(os.environ)
        if visible_gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = visible_gpus
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "worker.train"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=Path(__file__).resolve().parent.parent,
                start_new_session=True,
            )
        except OSError as error:
            raise CannotStart(f"no training process could be started: {error.strerror}") from error
        self._lines: queue.SimpleQueue[BaseModel | None] = queue.SimpleQueue()
        self._errors: deque[str] = deque(maxlen=STDERR_TAIL_LINES)
        self.ready = threading.Event()
        self.devices: Ready | None = None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers: list[threading.Thread] = []
        try:
            for read, stream in ((self._read_lines, self._process.stdout), (self._read_errors, self._process.stderr)):
                reader = threading.Thread(target=read, args=(stream,), daemon=True)
                reader.start()
                self._readers.append(reader)
        except RuntimeError as error:  # how Python says that the system gives it no thread
            self.kill()
            raise CannotStart(f"no training process could be heard: {error}") from error

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def send(self, line: BaseModel) -> None:
        """Tell the child something; a child that is gone is noticed by `hear`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(line.model_dump_json().encode() + b"\n")
            self._process.stdin.flush()

    def hear(self, timeout: float) -> BaseModel | None:
        """The next line, or None after `timeout` seconds or at the end of its output."""
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            return None

    @property
    def finished_talking(self) -> bool:
        """True when the child has exited and everything that it said was heard."""
        return self.returncode is not None and not self._readers[0].is_alive() and self._lines.empty()

    @property
    def errors(self) -> str:
        """The last lines of its standard error."""
        self._readers[1].join(timeout=1)
        return "\n".join(self._errors)

    def kill(self) -> None:
        """Kill the child and all that it started, and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _read_lines(self, stream: IO[bytes]) -> None:
        for raw in stream:
            try:
                line = FromChild.validate_json(raw)
            except ValidationError:
                self._errors.append(_printable(raw[:500]))
                continue
            if isinstance(line, Ready):
                self.devices = line
                self.ready.set()
            else:
                self._lines.put(line)
        self.ready.set()
        self._lines.put(None)

    def _read_errors(self, stream: IO[bytes]) -> None:
        for raw in stream:
            self._errors.append(_printable(raw.rstrip()[:2000]))


def _printable(raw: bytes) -> str:
    """Text that every database keeps: PostgreSQL refuses NUL."""
    return raw.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


class Standby:
    """Keeps one child per slot that has imported torch; each is used once, and replaced when that is told.

    Its replacement takes seconds of a processor to import torch, which a training that begins needs for itself.
    """

    def __init__(self, gpus: Mapping[str, str | None], scout: TrainingProcess) -> None:
        """`gpus` says for each slot, by name, which GPUs its children see, as CUDA_VISIBLE_DEVICES; None: as we do.

        The scout, a child that sees what we do, waits for a slot where that is right, and is killed otherwise.
        """
        self._gpus = gpus
        self._lock = threading.Lock()
        fitting = next((slot for slot, visible in gpus.items() if visible is None), None)
        self._idle = {slot: scout if slot == fitting else TrainingProcess(visible) for slot, visible in gpus.items()}
        self._stopped = False
        if fitting is None:
            scout.kill()

    def take(self, slot: str) -> TrainingProcess:
        """A child for one job; a new one where none stands by, or it died while it waited. Raises CannotStart."""
        with self._lock:
            self._drop_dead(slot)
            child = self._idle.pop(slot, None)
        return child or TrainingProcess(self._gpus[slot])

    def refill(self, slot: str) -> bool:
        """Have a child stand by for the slot's next job, unless one does; False, and a log, when none can be started.

        Whoever calls may go on without one, and try again later.
        """
        with self._lock:
            self._drop_dead(slot)
            if not self._stopped and slot not in self._idle:
                try:
                    self._idle[slot] = TrainingProcess(self._gpus[slot])
                except CannotStart as error:
                    _log.warning("nothing stands by for slot %s: %s", slot, error)
            return slot in self._idle

    def _drop_dead(self, slot: str) -> None:
        child = self._idle.get(slot)
        if child is not None and child.returncode is not None:
            child.kill()
            del self._idle[slot]

    def stop(self) -> None:
        """Kill the waiting children."""
        with self._lock:
            self._stopped = True
            idle, self._idle = [*self._idle.values()], {}
        for child in idle:
            child.kill()
