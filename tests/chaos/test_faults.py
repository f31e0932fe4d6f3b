"""A fault that finds nothing to hit is no fault, and one that counts has changed something."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import psutil
import psycopg
import pytest
from redis import Redis

from jobstore import schema
from jobstore.tables import Leader
from jobstore.wakeups import Bell
from jobstore.workers import DeviceClass
from tests.chaos import faults
from tests.chaos.clock import install_clock
from tests.chaos.cluster import Cluster, Servers
from tests.chaos.full_disk import can_be_filled, full_disk, small_file_system
from tests.servers import redis
from tests.servers.postgres import plain

LUCK = random.Random(1)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Cluster]:
    """A service on SQLite and messages as files, of which nothing runs."""
    cluster = Cluster("none", tmp_path, {"PALS_DATA_DIR": str(tmp_path / "data")}, {"serve": []})
    schema.upgrade(cluster.database)
    cluster.settings.broker_dir.mkdir()
    yield cluster
    cluster.database.close()


@pytest.fixture
def production(tmp_path: Path, fresh_postgres_url: str) -> Iterator[Cluster]:
    """A service on PostgreSQL and a Redis of its own, of which nothing runs."""
    program = redis.installed() or redis.from_wheel()
    if program is None:
        pytest.skip("no Redis to start")
    with redis.restartable(program) as broker:
        environment = {
            "PALS_DATA_DIR": str(tmp_path / "data"),
            "PALS_DATABASE_URL": fresh_postgres_url,
            "PALS_BROKER_URL": broker.url,
        }
        servers = Servers(fresh_postgres_url, fresh_postgres_url, broker)
        cluster = Cluster("none", tmp_path, environment, {"api": []}, servers)
        yield cluster
        cluster.database.close()


@pytest.fixture(params=["embedded", "production"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    return request.getfixturevalue(request.param)


def ring(cluster: Cluster, times: int) -> None:
    with closing(Bell(cluster.settings)) as bell:
        assert all(bell.ring(DeviceClass.CPU) for _ in range(times))


def clock_ahead(url: str) -> float:
    """Seconds by which the service's clock is ahead of the true one."""
    with psycopg.connect(plain(url)) as connection:
        question = "SELECT extract(epoch FROM clock_timestamp() - pg_catalog.clock_timestamp())"
        return float(connection.execute(question).fetchone()[0])


@pytest.mark.parametrize("jumps", [(faults.clock_back,) * 2, (faults.clock_forward,) * 2], ids=["back", "forward"])
def test_every_jump_of_the_clock_is_one(production: Cluster, jumps: tuple[Callable[..., bool], ...]) -> None:
    assert production.servers is not None
    url = production.servers.database_url
    install_clock(url)
    moved = [clock_ahead(url)]
    for jump in jumps:
        assert jump(production, LUCK)
        moved.append(clock_ahead(url))
    steps = [after - before for before, after in pairwise(moved)]
    assert [abs(step) for step in steps] == pytest.approx([faults.CLOCK_JUMP_SECONDS] * 2, abs=1)
    assert steps[0] * steps[1] > 0


def test_only_wake_ups_that_wait_can_be_lost(cluster: Cluster) -> None:
    assert not faults.lose_wakeups(cluster, LUCK)
    ring(cluster, 2)
    assert faults.lose_wakeups(cluster, LUCK)
    assert not faults.lose_wakeups(cluster, LUCK)


def test_torn_wake_ups_are_neither_lost_nor_torn_again(embedded: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults.tear_wakeups(embedded, LUCK)
    assert faults.messages_of(embedded)
    with monkeypatch.context() as silent:
        silent.setattr(Bell, "ring", lambda *_: True)
        assert not faults.tear_wakeups(embedded, LUCK)
    assert not faults.lose_wakeups(embedded, LUCK)
    assert not faults.messages_of(embedded)


def test_wake_ups_in_another_order_are_all_there(cluster: Cluster) -> None:
    def waiting() -> list[bytes]:
        if cluster.servers is None:
            return [path.read_bytes() for path in sorted(faults.messages_of(cluster))]
        with closing(Redis.from_url(cluster.servers.redis.url)) as client:
            return client.lrange(faults.queue_name(DeviceClass.CPU), 0, -1)

    ring(cluster, 20)
    before = waiting()
    assert faults.shuffle_wakeups(cluster, LUCK)
    after = waiting()
    assert set(after) > set(before)
    assert [message for message in after if message in before] != before


def test_only_a_redis_that_holds_something_can_be_emptied(production: Cluster) -> None:
    assert not faults.empty_redis(production, LUCK)
    ring(production, 1)
    assert faults.empty_redis(production, LUCK)


def test_two_leaders_need_one(embedded: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "LEADERS_SECONDS", 0.1)
    assert not faults.two_leaders(embedded, LUCK)
    with embedded.database.read() as session:
        assert session.query(Leader).all() == []


def test_who_is_killed_is_told_with_its_kin_and_who_is_gone_cannot_be() -> None:
    process = psutil.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.DEVNULL)
    assert faults.kill(process) == {process.pid, os.getpid()}
    process.wait()
    assert faults.kill(process) == faults.kill(None) == frozenset()


def test_a_small_file_system_is_filled_and_emptied(embedded: Cluster) -> None:
    root = embedded.artifacts.root
    with small_file_system(root) as mounted:
        if not mounted:
            assert can_be_filled(embedded)
            return
        with full_disk(embedded) as full:
            assert full
            with pytest.raises(OSError, match="No space left"):
                (root / "more").write_bytes(b"more")
        (root / "more").write_bytes(b"more")
    assert [*root.iterdir()] == []


def test_a_limit_on_files_hits_nobody_where_nobody_writes(embedded: Cluster) -> None:
    assert not faults.fill_disk(embedded, LUCK)
