"""An embedded service in a temporary folder that lives exactly as long as a block."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pals_client import Client

READY_SECONDS = 180.0
STOP_SECONDS = 30.0
LISTENS = "PALS listens on "


class ServiceFailed(Exception):
    """The service did not come up; carries the end of its log."""


@contextmanager
def throwaway_service() -> Iterator[str]:
    """Run `pals serve` on a free port while the block runs, and yield its address.

    It uses none of the caller's PALS_ settings. Nothing of it is left afterwards, not even when this
    process is killed: then the end of its standard input stops the service. Raises ServiceFailed.
    """
    with tempfile.TemporaryDirectory(prefix="pals-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PALS_")}
        environment |= {"PALS_DATA_DIR": str(folder / "data"), "PALS_PORT": "0", "PALS_LOG_LEVEL": "warning"}
        # torch keeps a cache where temporary files go.
        environment["TMPDIR"] = str(folder)
        log = folder / "log"
        with log.open("wb") as errors:
            # Its own session: Ctrl-C reaches this process alone, which then stops the service in order.
            process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "serve", "--exit-with-parent"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                cwd=Path(__file__).resolve().parent.parent,
                start_new_session=True,
            )
        try:
            yield _address(process, log)
        finally:
            _stop(process)


def wait_until_ready(client: Client) -> None:
    """Return once the service could run a job. Raises ServiceFailed when that takes too long."""
    deadline = time.monotonic() + READY_SECONDS
    while not client.is_ready():
        if time.monotonic() > deadline:
            raise ServiceFailed(f"the service was not ready within {READY_SECONDS:.0f} s")
        time.sleep(0.2)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        text = line.decode(errors="replace")
        if LISTENS in text:
            return text.partition(LISTENS)[2].split()[0]
    process.wait()
    raise ServiceFailed(f"the service ended with status {process.returncode}:\n{_tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        # A second Ctrl-C, or a service that hangs; its worker ends by itself when its input does.
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            if pipe is not None:
                pipe.close()


def _tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
