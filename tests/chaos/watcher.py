"""Looks, ten times a second, which process trains which job; the proof that no two ever train the same one."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field

import psutil

from tests.chaos.cluster import Cluster, command_of, job_of

INTERVAL_SECONDS = 0.1
# A training that was frozen together with its supervisor looks at its deadline when it wakes.
WAKING_SECONDS = 1.0


@dataclass
class Watcher:
    """A thread; `doubles` are the jobs that two processes were seen to train, `seen` all our processes ever."""

    cluster: Cluster
    doubles: list[str] = field(default_factory=list)
    seen: set[psutil.Process] = field(default_factory=set)
    samples: int = 0

    def __post_init__(self) -> None:
        self._awake_since: dict[psutil.Process, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def alive(self) -> list[psutil.Process]:
        """Those of our processes that are still there."""
        return [process for process in self.seen if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            self._look()

    def _look(self) -> None:
        now = time.monotonic()
        self.samples += 1
        if self.samples % 5 == 0:
            self.seen.update(self.cluster.processes())
        training: dict[str, list[psutil.Process]] = defaultdict(list)
        # All processes of the host: those of a killed worker have no parent of ours any more.
        for process in psutil.process_iter():
            if "worker.train" not in command_of(process):
                continue
            job = job_of(process, self.cluster.settings.scratch_dir)
            if job is None:
                continue
            self.seen.add(process)
            if self._is_awake(process, now):
                training[job].append(process)
        for job, processes in training.items():
            if len(processes) > 1:
                self.doubles.append(f"{job}: {', '.join(str(process.pid) for process in processes)}")

    def _is_awake(self, process: psutil.Process, now: float) -> bool:
        try:
            status = process.status()
        except psutil.Error:
            return False
        if status in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}:
            self._awake_since[process] = now + WAKING_SECONDS
            return False
        return now >= self._awake_since.get(process, 0.0)
