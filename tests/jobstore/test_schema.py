from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from jobstore import schema
from jobstore.database import Database, open_database
from jobstore.settings import Settings
from jobstore.tables import Base

TABLES = set(Base.metadata.tables)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without tables."""
    if request.param == "sqlite":
        database = open_database(Settings(data_dir=tmp_path / "data"))
        yield database
        database.close()
        return
    url = request.getfixturevalue("fresh_postgres_url")
    database = open_database(Settings.model_validate({"database_url": url}))
    yield database
    database.close()


def tables_of(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_the_migrations_build_what_the_tables_say_and_autogenerate_has_nothing_to_add(empty_database: Database) -> None:
    schema.upgrade(empty_database)

    assert tables_of(empty_database) == TABLES
    assert schema.differences(empty_database) == []


def test_the_migrations_go_up_down_and_up_again(empty_database: Database) -> None:
    schema.upgrade(empty_database)
    schema.downgrade(empty_database, "base")
    assert tables_of(empty_database) == set()

    schema.upgrade(empty_database)
    assert tables_of(empty_database) == TABLES
    assert schema.differences(empty_database) == []


def test_autogenerate_notices_a_column_that_the_migrations_forgot(empty_database: Database) -> None:
    schema.upgrade(empty_database)
    with empty_database.write() as session:
        session.execute(text("ALTER TABLE workers DROP COLUMN pid"))

    assert [difference[0] for difference in schema.differences(empty_database)] == ["add_column"]


def test_a_database_without_tables_is_refused_with_the_command_that_helps(empty_database: Database) -> None:
    with pytest.raises(schema.SchemaOutdated, match="run `pals migrate`"):
        schema.require_current(empty_database)

    schema.upgrade(empty_database)
    schema.require_current(empty_database)


def test_processes_that_migrate_at_the_same_time_wait_for_one_another(empty_database: Database) -> None:
    failures: list[BaseException] = []

    def migrate() -> None:
        try:
            schema.upgrade(empty_database)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    schema.require_current(empty_database)
