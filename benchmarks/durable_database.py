"""A PostgreSQL of one's own that has every commit on the disk, for figures that a user's server would have."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import text

from benchmarks.machine import provenance
from jobstore import schema
from jobstore.database import Database, open_database
from jobstore.settings import Settings
from tests.servers.postgres import any_postgres

DURABLE = {
    "shared_buffers": "1GB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "autovacuum": "on",
    "max_wal_size": "8GB",
}


@contextmanager
def durable_database(name: str) -> Iterator[tuple[Database, Settings]]:
    """An empty job store on such a server while the block lasts, and settings that name it and a folder of its own."""
    with tempfile.TemporaryDirectory(prefix=f"pals-{name}-") as folder, any_postgres(DURABLE) as server:
        settings = Settings.model_validate({"data_dir": Path(folder), "database_url": server.create_database()})
        with closing(open_database(settings)) as database:
            schema.upgrade(database)
            yield database, settings


def surroundings(database: Database) -> dict[str, Any]:
    """What figures of this database must be read with."""
    with database.read() as session:
        version = str(session.scalar(text("SHOW server_version")))
    load_average = os.getloadavg()  # of this machine, other programs included
    return provenance() | {"postgresql": version, "load_average": load_average, "settings": DURABLE}
