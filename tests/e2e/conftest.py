"""Each scenario runs on both stacks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.stacks import Service, embedded, production
from tests.servers.postgres import PostgresServer


@pytest.fixture(params=["embedded", "production"], scope="module")
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Each stack in turn, with the same scenarios."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "embedded":
        with embedded(folder) as service:
            yield service
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        database_url = server.create_database()
        try:
            with production(folder, database_url, request.getfixturevalue("redis_url")) as service:
                yield service
        finally:
            server.drop_database(database_url)
