"""What a worker writes under a lease while its database has better and worse moments."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, make_url, select

from jobstore.database import Database
from jobstore.leases import Lease, LeaseLost
from worker.clock import lease_time
from worker.ownership import Ownership

LEASE = Lease(
    job_id="job_1",
    token="token",
    attempt=1,
    spec={},
    limits={},
    runtime_seconds=0.0,
    dataset_key="data",
    dataset_sha256="",
    states=(),
    reproducible=None,
    micro_batches=1,
)


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    """A database whose one connection a second user does not get."""
    url = make_url(postgres_url).set(drivername="postgresql+psycopg")
    database = Database(create_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.1))
    yield database
    database.close()


def test_a_write_waits_for_a_connection_while_the_lease_lasts(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    ownership = Ownership(LEASE, database, asked=lease_time(), seconds=60)
    connection = database.engine.connect()
    threading.Timer(0.5, connection.close).start()
    assert ownership.write(lambda session: session.scalar(select(1))) == 1
    assert "job job_1: the database is away (TimeoutError)" in caplog.text


def test_a_write_that_gets_no_connection_before_the_lease_ends_has_lost_it(database: Database) -> None:
    ownership = Ownership(LEASE, database, asked=lease_time() - 60, seconds=60)
    with database.engine.connect(), pytest.raises(LeaseLost):
        ownership.write(lambda session: session.scalar(select(1)))
