from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from api.errors import from_database_error
from jobstore.database import open_database
from jobstore.settings import Settings


def test_a_database_without_room_is_told_from_one_that_is_busy(tmp_path: Path) -> None:
    database = open_database(Settings(data_dir=tmp_path))
    with database.write() as session, pytest.raises(DBAPIError) as busy, database.engine.connect() as other:
        session.execute(text("SELECT 1"))
        other.execute(text("PRAGMA busy_timeout = 0"))
        other.exec_driver_sql("CREATE TABLE second (id INTEGER)")
    assert from_database_error(busy.value).code == "database_unavailable"

    with pytest.raises(DBAPIError) as full, database.write() as session:
        session.execute(text("PRAGMA max_page_count = 1"))
        session.execute(text("CREATE TABLE large (bytes BLOB)"))
        session.execute(text("INSERT INTO large VALUES (zeroblob(100000))"))
    assert from_database_error(full.value).code == "database_full"
    database.close()
