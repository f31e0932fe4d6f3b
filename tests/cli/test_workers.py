from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from cli.workers import show
from jobstore import schema
from jobstore.database import open_database
from jobstore.settings import Settings
from jobstore.workers import DeviceClass, Slot, WorkerIdentity, announce


def shown(settings: Settings) -> str:
    output = io.StringIO()
    show(settings, Console(file=output, width=200))
    return output.getvalue()


def test_living_workers_are_listed_with_a_line_for_each_slot(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    database = open_database(settings)
    schema.upgrade(database)
    assert shown(settings) == "no worker is alive\n"

    slots = (
        Slot("cuda-0", (DeviceClass.CUDA, DeviceClass.AUTO), 3, "GPU-1"),
        Slot("cpu-0", (DeviceClass.CPU,), 2),
    )
    worker = WorkerIdentity(slots, {}, hostname="rack7")
    with database.write() as session:
        announce(session, worker)
    database.close()

    _, gpu, cpu = shown(settings).splitlines()
    assert gpu.split() == [worker.id, "rack7", "cuda-0", "cuda,", "auto", "3", "idle"]
    assert cpu.split() == [worker.id, "rack7", "cpu-0", "cpu", "2", "idle"]
