"""The training process: imports torch, waits for one job, trains it, exits.

It holds no database credentials. It exits by itself when its supervisor's end of the pipe closes, also while it still
imports, and when the lease runs out that the supervisor keeps renewing.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

from pals_core.errors import ErrorCode, PalsError
from pals_core.spec import Spec
from pals_core.training.events import CheckpointSaved, StateSaved
from worker.clock import lease_time
from worker.memory import be_killed_first
from worker.outbox import INTERVAL_SECONDS, Outbox
from worker.protocol import (
    EXIT_LEASE_ENDED,
    EXIT_ORPHANED,
    Failed,
    Gpu,
    LeaseRenewed,
    Ready,
    StorageUnavailable,
    Suspend,
    Suspended,
    ToChild,
    Train,
)

LOOK_MILLISECONDS = 200
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def main() -> None:
    """Speak the protocol on the standard streams; what else prints goes to standard error."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    be_killed_first()
    threading.Thread(target=_watch_supervisor, name="orphaned", daemon=True).start()

    # All that a training imports, so that no job waits for it: torch brings the last two, a second's worth, with the
    # first deterministic algorithm and the first optimizer.
    import torch
    import torch._dynamo
    import torch._inductor.config

    from pals_core.training import trainer  # noqa: F401

    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    devices = tuple(Gpu(name=gpu.name, memory_bytes=gpu.total_memory) for gpu in found)
    lock = threading.Lock()

    def say(line: BaseModel) -> None:
        with lock:
            output.write(line.model_dump_json() + "\n")
            output.flush()

    say(Ready(torch=torch.__version__, cuda_devices=devices))
    # Unbuffered: a reader that waits in a buffer's lock would abort the interpreter's shutdown.
    supervisor = io.FileIO(sys.stdin.fileno(), closefd=False)
    first = supervisor.readline()
    if not first:
        sys.exit(EXIT_ORPHANED)
    job = ToChild.validate_json(first)
    assert isinstance(job, Train)
    suspend = threading.Event()
    listener = threading.Thread(
        target=_listen, args=(supervisor, job.lease_until, suspend), name="supervisor", daemon=True
    )
    listener.start()
    sys.exit(_train(job, say, suspend))


def _listen(stream: io.FileIO, lease_until: float, suspend: threading.Event) -> None:
    """Hear the supervisor, and end this process when the lease was not renewed in time.

    All that was said counts before the time does: whoever was long importing, or was frozen, has renewals to hear.
    """
    lines = select.poll()
    lines.register(stream.fileno(), select.POLLIN)
    while True:
        ended = lease_time() >= lease_until
        if not lines.poll(0 if ended else LOOK_MILLISECONDS):
            if ended:
                os._exit(EXIT_LEASE_ENDED)
            continue
        line = stream.readline()
        if not line:
            return
        message = ToChild.validate_json(line)
        if isinstance(message, LeaseRenewed):
            lease_until = message.until
        elif isinstance(message, Suspend):
            suspend.set()


def _watch_supervisor() -> None:
    """End this process when the other end of its standard input closes; reads nothing from it."""
    end = select.poll()
    end.register(sys.stdin.fileno(), 0)  # a hang-up is told without being asked for
    end.poll()
    os._exit(EXIT_ORPHANED)


def _train(job: Train, say: Callable[[BaseModel], None], suspend: threading.Event) -> int:
    from pals_core.data.table import read_table
    from pals_core.training.trainer import Trainer

    output_dir = Path(job.output_dir)
    # What a library leaves in the folder it runs in goes with the training; and people see what this process trains.
    os.chdir(output_dir)
    # Whoever wants states more often than usual gets checkpoints as often.
    outbox = Outbox(output_dir / "outbox", say, min(INTERVAL_SECONDS, job.state_interval_seconds))
    try:
        spec = Spec.model_validate(job.spec)
        try:
            table = read_table(Path(job.table_path), spec.data.columns)
        except OSError as error:
            if error.errno is None:
                raise
            say(StorageUnavailable(message=f"the dataset cannot be read: {os.strerror(error.errno)}"))
            return 0
        trainer = Trainer(
            spec,
            table,
            output_dir,
            threads=None if job.resume_from else job.threads,
            dataset_sha256=job.dataset_sha256,
            resume_from=Path(job.resume_from) if job.resume_from else None,
            state_interval_seconds=job.state_interval_seconds,
            micro_batches=job.micro_batches,
        )
        for event in trainer.run():
            if not isinstance(event, CheckpointSaved | StateSaved):
                say(event)
                if suspend.is_set():
                    trainer.request_state()
                continue
            outbox.put(event)
            if isinstance(event, StateSaved) and suspend.is_set():
                say(Suspended())
                return 0
    except PalsError as error:
        outbox.flush()
        param = error.problems[0].pointer if error.problems else None
        say(Failed(code=error.code, message=error.message, param=param))
    except MemoryError:
        say(Failed(code=ErrorCode.OUT_OF_MEMORY, message="the training process ran out of memory"))
    except OSError as error:
        if error.errno not in NO_ROOM:
            traceback.print_exc()
            return 1
        say(StorageUnavailable(message=f"no room for the files of the training: {os.strerror(error.errno)}"))
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main()
