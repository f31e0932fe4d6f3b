"""Loads checkpoints in a process of its own that does nothing else; prints one line of JSON on the last of them.

Started by `benchmarks.checkpoint`. A small one before the last brings the code that loading takes into memory.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from pals_core.forecast.forecaster import load_forecaster

LOADS = 5


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage tells is never less than the peak of whoever started this process
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def load(*before: Path, path: Path) -> dict[str, Any]:
    """Return seconds, and by how much memory grew at most while `path` was loaded for the first time."""
    for other in before:
        load_forecaster(other)
    resident = psutil.Process().memory_info().rss
    seconds: list[float] = []
    of_processor: list[float] = []
    peak = 0
    for _ in range(1 + LOADS):
        began, began_there = time.perf_counter(), time.process_time()
        load_forecaster(path)
        seconds.append(time.perf_counter() - began)
        of_processor.append(time.process_time() - began_there)
        peak = peak or peak_bytes()
    return {
        "first_load_seconds": round(seconds[0], 3),
        "first_load_processor_seconds": round(of_processor[0], 3),
        "load_seconds": round(statistics.median(seconds[1:]), 3),
        "load_processor_seconds": round(statistics.median(of_processor[1:]), 3),
        "peak_growth_bytes": peak - resident,
    }


if __name__ == "__main__":
    print(json.dumps(load(*map(Path, sys.argv[1:-1]), path=Path(sys.argv[-1]))))
