from __future__ import annotations

import os
import socket
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError

from jobstore import schema
from jobstore.database import DatabaseUnavailable, has_no_room, now, open_database
from jobstore.settings import Settings
from jobstore.tables import Leader
from tests.servers.postgres import plain

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store
    from tests.servers.postgres import PostgresServer

MOMENT = datetime(2026, 3, 1, tzinfo=UTC)


def test_a_write_that_fails_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.database.write() as session:
        session.add(Leader(name="a", holder="me", expires_at=MOMENT))
        session.flush()
        raise RuntimeError

    with store.database.read() as session:
        assert session.get(Leader, "a") is None


def test_a_plain_postgresql_address_uses_the_driver_that_is_installed(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "database_url": "postgresql://pals@127.0.0.1:1/pals"})
    assert open_database(settings).engine.driver == "psycopg"


def test_rows_stay_usable_after_their_transaction(store: Store) -> None:
    with store.database.write() as session:
        leader = Leader(name="a", holder="me", expires_at=MOMENT)
        session.add(leader)

    assert (leader.name, leader.expires_at) == ("a", MOMENT)


def test_what_a_reader_changes_is_not_kept(store: Store) -> None:
    with store.database.read() as session:
        session.add(Leader(name="a", holder="me", expires_at=MOMENT))
        session.flush()

    with store.database.read() as session:
        assert session.get(Leader, "a") is None


def test_readers_are_not_held_up_by_a_writer(store: Store) -> None:
    with store.database.write() as writing:
        writing.add(Leader(name="a", holder="me", expires_at=MOMENT))
        writing.flush()
        with store.database.read() as reading:
            assert reading.get(Leader, "a") is None


def test_writers_that_read_before_they_write_wait_instead_of_failing(store: Store) -> None:
    with store.database.write() as session:
        session.add(Leader(name="counter", holder="0", expires_at=MOMENT))
    failures: list[BaseException] = []

    def count() -> None:
        try:
            for _ in range(10):
                with store.database.write() as session:
                    row = session.get(Leader, "counter", with_for_update=True)
                    assert row is not None
                    row.holder = str(int(row.holder) + 1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    with store.database.read() as session:
        assert session.get_one(Leader, "counter").holder == "40"


def test_a_process_frozen_in_a_transaction_loses_its_rows_in_postgresql_after_a_lease(
    postgres_server: PostgresServer,
) -> None:
    url = postgres_server.create_database()
    waiting = open_database(Settings.model_validate({"database_url": url}))
    schema.upgrade(waiting)
    with waiting.write() as session:
        session.add(Leader(name="a", holder="me", expires_at=MOMENT))

    # All that is done in so short a lease is what it is to be lost in.
    frozen = open_database(Settings.model_validate({"database_url": url, "lease_seconds": 0.2}))
    with pytest.raises(DBAPIError) as lost, frozen.write() as asleep:
        asleep.get_one(Leader, "a", with_for_update=True)
        with waiting.write() as session:
            session.get_one(Leader, "a", with_for_update=True).holder = "another"
        asleep.get_one(Leader, "a", populate_existing=True).holder = "me again"

    assert lost.value.connection_invalidated
    with waiting.read() as session:
        assert session.get_one(Leader, "a").holder == "another"
    frozen.close()
    waiting.close()
    postgres_server.drop_database(url)


def test_the_clock_goes_on_within_a_transaction(store: Store) -> None:
    with store.database.write() as session:
        first, second = now(session), now(session)

    assert second > first
    assert first.tzinfo is UTC


def test_a_database_that_answers_is_not_complained_about(store: Store) -> None:
    store.database.ping()


def test_a_database_that_is_down_is_named_without_address_and_password(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        url = f"postgresql+psycopg://pals:hunter2@127.0.0.1:{taken.getsockname()[1]}/pals"
        database = open_database(Settings.model_validate({"data_dir": tmp_path, "database_url": url}))
        with pytest.raises(DatabaseUnavailable) as failure:
            database.ping()
        database.close()

    assert str(failure.value) == "the database does not answer (OperationalError)"


def test_the_embedded_database_keeps_commits_over_a_power_cut_and_watches_its_references(tmp_path: Path) -> None:
    database = open_database(Settings(data_dir=tmp_path / "data"))
    with database.engine.connect() as connection:
        found = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    database.close()

    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


def test_commits_in_postgresql_survive_its_crash_also_where_the_server_would_not_wait(
    postgres_server: PostgresServer,
) -> None:
    url = postgres_server.create_database()
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {make_url(url).database} SET synchronous_commit = off")
        database = open_database(Settings.model_validate({"database_url": url}))
        with database.write() as session:
            assert session.scalar(text("SHOW synchronous_commit")) == "on"
        database.close()
    postgres_server.drop_database(url)


def psycopg_connection(connection: Connection) -> psycopg.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (10, 5, 3, 20_000)),
        ("keepalives_idle=77&tcp_user_timeout=4000", (77, 5, 3, 4000)),
        ("keepalives_interval=78&keepalives_count=7", (10, 78, 7, 20_000)),
    ],
)
def test_a_postgresql_that_falls_silent_is_given_up_after_seconds_unless_its_url_says_otherwise(
    postgres_url: str, query: str, expected: tuple[int, ...]
) -> None:
    url = make_url(postgres_url).update_query_string(query).render_as_string(hide_password=False)
    database = open_database(Settings.model_validate({"database_url": url}))
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    known = {name: value for name, value in zip(names, expected, strict=True) if hasattr(socket, name)}
    with database.engine.connect() as connection:
        descriptor = os.dup(psycopg_connection(connection).fileno())
    with socket.socket(fileno=descriptor) as ours:
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        found = {name: ours.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in known}
    database.close()

    assert found == known


def test_how_long_to_wait_for_a_postgresql_can_be_said_in_its_url(postgres_url: str) -> None:
    told = {"connect_timeout": "9", "keepalives": "0"}
    url = make_url(postgres_url).update_query_dict(told).render_as_string(hide_password=False)
    for given, expected in ((postgres_url, {"connect_timeout": "5"}), (url, told)):
        database = open_database(Settings.model_validate({"database_url": given}))
        with database.engine.connect() as connection:
            parameters = psycopg_connection(connection).info.get_parameters()
        database.close()
        assert {name: parameters[name] for name in expected} == expected


def test_a_postgresql_behind_a_socket_of_the_file_system_is_spoken_to_all_the_same() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/.s.PGSQL.5432")
        server.listen()
        said: list[bytes] = []

        def hang_up() -> None:
            with server.accept()[0] as connection:
                said.append(connection.recv(4))

        thread = threading.Thread(target=hang_up)
        thread.start()
        database = open_database(Settings.model_validate({"database_url": f"postgresql:///pals?host={folder}"}))
        with pytest.raises(DatabaseUnavailable):
            database.ping()
        thread.join()
        database.close()

    assert said
    assert said[0]


def test_only_the_owner_may_look_into_the_folder_of_the_embedded_service(tmp_path: Path) -> None:
    open_database(Settings(data_dir=tmp_path / "data")).close()

    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_full_disk_is_told_from_other_failures(store: Store) -> None:
    """PostgreSQL is made to say so; SQLite is given no further page."""
    with pytest.raises(DBAPIError) as full, store.database.write() as session:
        if session.get_bind().dialect.name == "sqlite":
            session.execute(text("PRAGMA max_page_count = 1"))
            for number in range(1000):
                session.add(Leader(name=f"{number}" * 8, holder="me" * 20, expires_at=MOMENT))
            session.flush()
        else:
            session.execute(text("DO $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$"))
    assert has_no_room(full.value)

    with pytest.raises(DBAPIError) as other, store.database.write() as session:
        session.execute(text("SELECT 1 FROM nowhere"))
    assert not has_no_room(other.value)
