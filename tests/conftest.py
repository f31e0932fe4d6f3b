"""What every test stands on: a private environment, servers of our own, and no silent skips in CI."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack

import pytest

from tests.servers.postgres import PostgresServer, any_postgres
from tests.servers.redis import any_redis
from tests.servers.s3 import S3Server, moto_server
from tests.servers.throwaway import ServerUnavailable

KEPT_SETTINGS = ("PALS_TEST_", "PALS_REFERENCE_DIR", "PALS_SERIES_DIR")
# Marks of tests that need what even a machine of CI may lack.
OF_HARDWARE = ("gpu", "instructions")


def pytest_configure(config: pytest.Config) -> None:
    """Hide the caller's PALS_ settings, so that no test reaches a real database, broker or data folder."""
    for name in [name for name in os.environ if name.startswith("PALS_") and not name.startswith(KEPT_SETTINGS)]:
        del os.environ[name]
    data_dir = tempfile.mkdtemp(prefix="pals-test-data-")
    config.add_cleanup(lambda: shutil.rmtree(data_dir, ignore_errors=True))
    os.environ["PALS_DATA_DIR"] = data_dir


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() == "true"


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI a test that did not run has failed."""
    if in_ci() and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"With CI=true only tests marked {' or '.join(OF_HARDWARE)} may be skipped. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not any(item.get_closest_marker(mark) for mark in OF_HARDWARE):
        fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_if_skipped(report)
    return report


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL for the whole run: `create_database(template=None)` and `drop_database(url)`."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(any_postgres())
        except ServerUnavailable as missing:
            pytest.skip(str(missing))
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The SQLAlchemy URL of one database, empty at first, for the whole run."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def fresh_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database for this test alone."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a Redis database for the whole run, empty at first."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(any_redis())
        except ServerUnavailable as missing:
            pytest.skip(str(missing))
        yield url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3-compatible server for the whole run; each user makes a bucket."""
    with moto_server() as server:
        yield server
