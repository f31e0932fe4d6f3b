"""`pals workers`: who is alive, and what each slot is doing."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from jobstore.database import open_database
from jobstore.fleet import Occupation, crews
from jobstore.schema import require_current
from jobstore.settings import Settings


def show(settings: Settings, console: Console) -> None:
    """Print the living workers of the configured database, a line for each slot."""
    if settings.database_url is None and not settings.embedded_database.exists():
        console.print(f"no service has run in {settings.root} yet")
        return
    database = open_database(settings)
    try:
        require_current(database)
        with database.read() as session:
            found = crews(session)
    finally:
        database.close()
    if not found:
        console.print("no worker is alive")
        return
    table = Table("worker", "host", "slot", "takes", "threads", "job", "step", box=None)
    for crew in found:
        for occupied in crew.slots:
            slot = occupied.slot
            table.add_row(
                crew.worker.id,
                crew.worker.hostname,
                slot.name,
                ", ".join(slot.device_classes),
                str(slot.threads),
                occupied.job_id or "idle",
                _step(occupied),
            )
    console.print(table, soft_wrap=True)


def _step(occupied: Occupation) -> str:
    if occupied.free:
        return ""
    return "begins" if occupied.step is None else f"{occupied.step} of {occupied.total_steps}"
