"""Engines and transactions for SQLite and PostgreSQL: `with database.write() as session:`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from jobstore.settings import Settings

SQLITE_BUSY_SECONDS = 30
CONNECT_SECONDS = 5
# A server whose host lost power, or whose packets a firewall drops, says no more. Left to itself the kernel waits two
# hours before it asks whether the other end is there, and a quarter of an hour for what was sent to be acknowledged.
# With these a silent connection ends within half a minute, and the next question makes a new one.
KEEPALIVE_IDLE_SECONDS = 10  # after so long in which nothing was heard, ask
KEEPALIVE_INTERVAL_SECONDS = 5  # ask again, when there is no answer
KEEPALIVE_COUNT = 3  # so many questions without an answer end the connection
UNACKNOWLEDGED_MILLISECONDS = 20_000  # and so does this long without an acknowledgement, where the system can
_BEGIN = "pals_sqlite_begin"


class DatabaseUnavailable(Exception):
    """The database did not answer; the message carries no address and no password."""


def has_no_room(error: DBAPIError) -> bool:
    """Whether a statement failed because the database's disk is full."""
    cause = error.orig
    return getattr(cause, "sqlstate", None) == "53100" or getattr(cause, "sqlite_errorname", None) == "SQLITE_FULL"


class Database:
    """One engine. `read` is a short snapshot; `write` commits when its block ends without an error."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.writing = engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A read-only transaction; objects stay usable after it."""
        with Session(self.engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that commits at the end of the block and rolls back on any error."""
        with Session(self.writing, expire_on_commit=False) as session, session.begin():
            yield session

    def ping(self) -> None:
        """Raise DatabaseUnavailable unless the database answers."""
        try:
            with self.engine.connect() as connection:
                connection.execute(select(1))
        except SQLAlchemyError as error:
            raise DatabaseUnavailable(f"the database does not answer ({type(error).__name__})") from None

    def close(self) -> None:
        self.engine.dispose()


def now(session: Session) -> datetime:
    """The database's clock, which leases are measured by, so that hosts need not agree on the time."""
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(UTC)
    value = session.scalar(select(func.clock_timestamp()))
    assert isinstance(value, datetime)
    return value.astimezone(UTC)


def open_database(settings: Settings) -> Database:
    """Connect lazily to the configured database; creates the folder of the embedded one."""
    url = make_url(settings.resolved_database_url)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite":
        settings.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Database(_sqlite_engine(url.render_as_string(hide_password=False)))
    parameters = {
        "timezone": "UTC",
        "statement_timeout": 30_000,
        # A process frozen in the middle of a transaction keeps its rows locked; after a lease nobody waits for it.
        "idle_in_transaction_session_timeout": max(1, round(settings.lease_seconds * 1000)),
        # What is announced has to survive the server's crash, whatever is the rule for its other databases.
        "synchronous_commit": "on",
    }
    options = " ".join(f"-c {name}={value}" for name, value in parameters.items())
    return Database(
        create_engine(
            url,
            pool_pre_ping=True,
            pool_size=10,
            max_overflow=20,
            json_deserializer=from_json,  # three times as fast as the standard library's
            connect_args={**_patience(url), "options": options},
        )
    )


def _patience(url: URL) -> dict[str, int]:
    """How long to wait for a PostgreSQL that says nothing, as libpq's parameters, but for those in the URL's query.

    libpq leaves all but the first out for a socket of the file system.
    """
    parameters = {
        "connect_timeout": CONNECT_SECONDS,
        "keepalives": 1,
        "keepalives_idle": KEEPALIVE_IDLE_SECONDS,
        "keepalives_interval": KEEPALIVE_INTERVAL_SECONDS,
        "keepalives_count": KEEPALIVE_COUNT,
        "tcp_user_timeout": UNACKNOWLEDGED_MILLISECONDS,
    }
    return {name: value for name, value in parameters.items() if name not in url.query}


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": SQLITE_BUSY_SECONDS, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver must not open transactions by itself: `begin` below decides which kind.
        connection.isolation_level = None
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"busy_timeout = {SQLITE_BUSY_SECONDS * 1000}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes the write lock at once: upgrading a reader later fails with a busy snapshot.
        connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))

    return engine
