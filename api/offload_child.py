"""A child process that does what the API process must not: reads untrusted tables, runs networks.

Run as a program: `python -m api.offload_child KIND MEMORY_BYTES CACHE_BYTES`. It reads requests as JSON lines
from standard input, answers as JSON lines on standard output, knows the functions in `KINDS` and no others, and ends
when its input closes, so it dies with its parent. CACHE_BYTES is how much of its memory loaded forecasters may keep.
"""

from __future__ import annotations

import errno
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from api.offload_protocol import FILE_GONE, OUT_OF_MEMORY_EXIT, OffloadKind
from pals_core.errors import PalsError

Function = Callable[[dict[str, Any]], dict[str, Any]]
MEMORY_POLL_SECONDS = 0.05


def _audit(_cache_bytes: int) -> Function:
    from pals_core.data.audit import audit_table

    def audit(arguments: dict[str, Any]) -> dict[str, Any]:
        return audit_table(Path(arguments["path"])).model_dump(mode="json")

    return audit


def _forecast(cache_bytes: int) -> Function:
    from pals_core.forecast.cache import ForecasterCache
    from pals_core.forecast.plain import forecast_json

    forecasters = ForecasterCache(cache_bytes)

    def forecast(arguments: dict[str, Any]) -> dict[str, Any]:
        table = arguments.get("table")
        return forecast_json(
            arguments["checkpoint"],
            arguments.get("rows"),
            None if table is None else Path(table),
            future=arguments.get("future"),
            series=arguments.get("series"),
            horizon=arguments.get("horizon"),
            levels=arguments.get("levels"),
            load=forecasters.load,
        )

    return forecast


def _variant(_cache_bytes: int) -> Function:
    from pals_core.checkpoint.header import StoredPrecision
    from pals_core.export.formats import ExportFormat
    from pals_core.export.variant import write_variant

    def variant(arguments: dict[str, Any]) -> dict[str, Any]:
        series, evaluation = arguments.get("series"), arguments.get("evaluation")
        mse_change = write_variant(
            Path(arguments["checkpoint"]),
            Path(arguments["output"]),
            ExportFormat(arguments["format"]),
            StoredPrecision(arguments["precision"]),
            name=arguments["name"],
            series=None if series is None else Path(series),
            evaluation=None if evaluation is None else Path(evaluation),
        )
        return {"mse_change": mse_change}

    return variant


KINDS: Mapping[str, Callable[[int], Function]] = {
    OffloadKind.AUDIT: _audit,
    OffloadKind.FORECAST: _forecast,
    OffloadKind.VARIANT: _variant,
}


def answer(function: Function, line: bytes) -> dict[str, Any]:
    """Run one request; an error raised on purpose becomes part of the answer."""
    try:
        return {"result": function(json.loads(line))}
    except PalsError as error:
        problems = [
            {"message": item.message, "pointer": item.pointer, "row": item.row, "column": item.column}
            for item in error.problems
        ]
        return {"error": {"code": error.code, "message": error.message, "problems": problems}}
    except FileNotFoundError:
        return {"error": {"code": FILE_GONE, "message": "the stored bytes are gone", "problems": []}}


def resident_bytes() -> int:
    """Memory this process occupies; its peak where the system tells no more."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _watch_memory(limit: int) -> None:
    while resident_bytes() <= limit:
        time.sleep(MEMORY_POLL_SECONDS)
    os._exit(OUT_OF_MEMORY_EXIT)


def _read_requests(requests: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        requests.put(line)
    # The parent is gone or wants no more: stop even in the middle of a request.
    os._exit(0)


def _limit_address_space(memory_bytes: int) -> None:
    # A network's library maps far more than it uses, so only the audit gets this hard limit.
    import resource

    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    ceiling = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, hard))


def _lacks_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or "can't start new thread" in str(error)


def main(kind: str, memory_bytes: int, cache_bytes: int) -> None:
    # Whatever a library prints must not land among the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if kind == OffloadKind.AUDIT and sys.platform == "linux":
        _limit_address_space(memory_bytes)
    threading.Thread(target=_watch_memory, args=(memory_bytes,), daemon=True).start()
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()

    def send(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message).encode() + b"\n")
        answers.flush()

    try:
        function = KINDS[kind](cache_bytes)
        send({"ready": True})
        while True:
            reply = answer(function, requests.get())
            send(reply | {"resident_bytes": resident_bytes()})
    except BaseException as error:
        # The thread that waits for input would hang the interpreter's own way of ending.
        if not _lacks_memory(error):
            traceback.print_exc()
            os._exit(1)
        os._exit(OUT_OF_MEMORY_EXIT)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
