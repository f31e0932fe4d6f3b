"""A PostgreSQL database whose clock can be set: the service asks it, and nothing else, what time it is."""

from __future__ import annotations

import psycopg
from psycopg import sql

from tests.servers.postgres import plain

SCHEMA = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.jump (seconds double precision NOT NULL);
INSERT INTO chaos.jump VALUES (0);
CREATE FUNCTION chaos.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
  'SELECT pg_catalog.clock_timestamp() + make_interval(secs => (SELECT seconds FROM chaos.jump))';
"""


def install_clock(url: str) -> None:
    """Put a settable clock before PostgreSQL's own, for connections made from now on."""
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute(SCHEMA)
        name = sql.Identifier(connection.info.dbname)
        # With pg_catalog named, and behind: what is not named is searched first.
        path = sql.SQL("ALTER DATABASE {} SET search_path = public, chaos, pg_catalog").format(name)
        connection.execute(path)


def turn_clock(url: str, seconds: float) -> None:
    """Let the database's clock jump `seconds` ahead of where it stands, or back when they are negative."""
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute("UPDATE chaos.jump SET seconds = seconds + %s", (seconds,))
