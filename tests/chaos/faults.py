"""What may befall the service. Every fault is over when its function returns, and what died is started again later."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
from psycopg import sql
from redis import Redis

from jobstore.tables import Leader
from jobstore.upkeep import LEADER, Upkeep
from jobstore.wakeups import Bell, queue_name
from jobstore.workers import DeviceClass
from tests.chaos.clock import turn_clock
from tests.chaos.cluster import GRACE_SECONDS, LEASE_SECONDS, Cluster
from tests.chaos.full_disk import can_be_filled, full_disk
from tests.chaos.losses import MayLose
from tests.servers.postgres import plain

PAST_THE_LEASE = LEASE_SECONDS + GRACE_SECONDS + 1.5
CLOCK_JUMP_SECONDS = 600.0
DISK_SECONDS = 3.0
REDIS_AWAY_SECONDS = 2.0
LEADERS_SECONDS = 1.0
MANY = 50


@dataclass(frozen=True)
class Fault:
    """`strike` says whether it found something to hit, or which processes; `servers`, on which stacks it can happen.

    True: with PostgreSQL and Redis only; False: with the embedded ones only; None: on both.
    """

    name: str
    what: str
    strike: Callable[[Cluster, random.Random], bool | frozenset[int]]
    servers: bool | None = None
    may_lose: MayLose = MayLose.NOBODY


def any_of(processes: list[psutil.Process], luck: random.Random) -> psutil.Process | None:
    return luck.choice(processes) if processes else None


def send(process: psutil.Process | None, number: signal.Signals) -> bool:
    if process is None:
        return False
    with suppress(psutil.NoSuchProcess):
        if process.status() != psutil.STATUS_ZOMBIE:
            process.send_signal(number)
            return True
    return False


def kill(process: psutil.Process | None) -> frozenset[int]:
    """SIGKILL; the ids of the process, its parent and its children, none when there was nothing to kill."""
    with suppress(psutil.NoSuchProcess):
        if process is not None:
            kin = {process.pid, process.ppid(), *(child.pid for child in process.children())}
            return frozenset(kin if send(process, signal.SIGKILL) else ())
    return frozenset()


def kill_training(cluster: Cluster, luck: random.Random) -> frozenset[int]:
    return kill(any_of([*cluster.trainings()], luck))


def kill_worker(cluster: Cluster, luck: random.Random) -> frozenset[int]:
    return kill(any_of(cluster.workers(), luck))


def kill_api(cluster: Cluster, luck: random.Random) -> frozenset[int]:
    with suppress(psutil.NoSuchProcess):
        return kill(psutil.Process(cluster.parts[cluster.api].pid))
    return frozenset()


def kill_leader(cluster: Cluster, luck: random.Random) -> frozenset[int]:
    with cluster.database.read() as session:
        leader = session.get(Leader, LEADER)
    pid = int(leader.holder.partition("-")[0]) if leader else 0
    return kill(next((process for process in cluster.processes() if process.pid == pid), None))


def stop_worker(cluster: Cluster, luck: random.Random) -> bool:
    return send(any_of(cluster.workers(), luck), signal.SIGTERM)


@contextmanager
def frozen(processes: list[psutil.Process]) -> Iterator[bool]:
    """SIGSTOP, and SIGCONT at the end; False when none of them was there any more."""
    stopped = [send(process, signal.SIGSTOP) for process in processes]
    try:
        yield any(stopped)
    finally:
        for process in processes:
            send(process, signal.SIGCONT)


def freeze_supervisor(cluster: Cluster, luck: random.Random) -> bool:
    worker = any_of(cluster.workers(), luck)
    if worker is None:
        return False
    with frozen([worker]) as stopped:
        time.sleep(PAST_THE_LEASE)
    return stopped


def freeze_with_training(cluster: Cluster, luck: random.Random) -> bool:
    worker = any_of(cluster.workers(), luck)
    if worker is None:
        return False
    with suppress(psutil.NoSuchProcess), frozen([worker, *worker.children(recursive=True)]) as stopped:
        time.sleep(PAST_THE_LEASE)
        return stopped
    return False


def two_leaders(cluster: Cluster, luck: random.Random) -> bool:
    """Do upkeep here as well, as fast as it goes, in the name of whoever leads."""
    bell = Bell(cluster.settings)
    second = Upkeep(cluster.database, cluster.artifacts, bell, cluster.settings)
    until = time.monotonic() + LEADERS_SECONDS
    led = 0
    with closing(bell):
        while time.monotonic() < until:
            with cluster.database.read() as session:
                leader = session.get(Leader, LEADER)
            if leader is not None:
                second._holder = leader.holder
                led += second.once()
    return led > 0


def many_wakeups(cluster: Cluster, luck: random.Random) -> bool:
    with closing(Bell(cluster.settings)) as bell:
        rung = sum(bell.ring(DeviceClass.CPU) for _ in range(MANY))
    return rung > 0


def messages_of(cluster: Cluster) -> list[Path]:
    """The files of the embedded broker's waiting wake-ups."""
    return [*cluster.settings.broker_dir.glob(f"*.{queue_name(DeviceClass.CPU)}.msg")]


def is_whole(message: Path) -> bool:
    """False for one that was torn, or that a worker has taken meanwhile."""
    with suppress(FileNotFoundError, ValueError):
        json.loads(message.read_text())
        return True
    return False


def lose_wakeups(cluster: Cluster, luck: random.Random) -> bool:
    if cluster.servers is not None:
        with closing(Redis.from_url(cluster.servers.redis.url)) as client:
            return bool(client.delete(queue_name(DeviceClass.CPU)))
    lost = 0
    for message in messages_of(cluster):
        lost += is_whole(message)
        message.unlink(missing_ok=True)
    return lost > 0


def shuffle_wakeups(cluster: Cluster, luck: random.Random) -> bool:
    with closing(Bell(cluster.settings)) as bell:
        for _ in range(MANY // 10):
            bell.ring(DeviceClass.CPU)
    if cluster.servers is not None:
        with closing(Redis.from_url(cluster.servers.redis.url)) as client:
            queue = queue_name(DeviceClass.CPU)
            messages = client.lrange(queue, 0, -1)
            shuffled = luck.sample(messages, len(messages))
            client.delete(queue)
            for message in shuffled:
                client.rpush(queue, message)
            return bool(shuffled != messages)
    waiting = messages_of(cluster)
    swapped = 0
    for one, other in zip(waiting, luck.sample(waiting, len(waiting)), strict=True):
        if one == other:
            continue
        with suppress(FileNotFoundError):
            spare = one.with_suffix(".shuffled")
            one.rename(spare)
            other.rename(one)
            spare.rename(other)
            swapped += 1
    return swapped > 0


def tear_wakeups(cluster: Cluster, luck: random.Random) -> bool:
    with closing(Bell(cluster.settings)) as bell:
        for _ in range(MANY // 10):
            bell.ring(DeviceClass.CPU)
    torn = 0
    for message in messages_of(cluster):
        with suppress(FileNotFoundError):
            if is_whole(message):
                os.truncate(message, luck.randrange(max(1, message.stat().st_size)))
                torn += 1
    return torn > 0


def fill_disk(cluster: Cluster, luck: random.Random) -> bool:
    if not can_be_filled(cluster):
        return False
    with full_disk(cluster) as full:
        time.sleep(DISK_SECONDS)
    return full


def empty_redis(cluster: Cluster, luck: random.Random) -> bool:
    assert cluster.servers is not None
    with closing(Redis.from_url(cluster.servers.redis.url)) as client:
        held = client.dbsize()
        client.flushall()
    return bool(held)


def restart_redis(cluster: Cluster, luck: random.Random) -> bool:
    assert cluster.servers is not None
    cluster.servers.redis.restart(luck.uniform(0, REDIS_AWAY_SECONDS))
    return True


def database_name(cluster: Cluster) -> str:
    assert cluster.servers is not None
    return urlsplit(cluster.servers.database_url).path.lstrip("/")


def postgres_processes(cluster: Cluster) -> tuple[psutil.Process, list[psutil.Process]]:
    """The server's main process and the others, first those that serve the database of the service."""
    assert cluster.servers is not None
    with psycopg.connect(plain(cluster.servers.postgres_url)) as connection:
        mine = psutil.Process(connection.info.backend_pid)
        main = mine.parent()
        query = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
        serving = {row[0] for row in connection.execute(query, (database_name(cluster),))}
    assert main is not None
    return main, sorted(main.children(recursive=True), key=lambda process: process.pid not in serving)


def crash_postgres(cluster: Cluster, luck: random.Random) -> bool:
    """Kill a process that serves us: PostgreSQL then ends all others, recovers from its log and begins anew."""
    _, others = postgres_processes(cluster)
    return send(any_of(others[:5], luck), signal.SIGKILL)


def refuse_connections(cluster: Cluster, seconds: float) -> None:
    """Cut off whoever is connected to the service's database, and let nobody in for so long."""
    assert cluster.servers is not None
    name = database_name(cluster)
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    with psycopg.connect(plain(cluster.servers.postgres_url), autocommit=True) as connection:
        connection.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
        try:
            connection.execute(cut, (name,))
            time.sleep(seconds)
        finally:
            connection.execute(allow.format(sql.Identifier(name), sql.SQL("true")))


def database_away(cluster: Cluster, luck: random.Random) -> bool:
    refuse_connections(cluster, 30.0)
    return True


def database_away_shortly(cluster: Cluster, luck: random.Random) -> bool:
    refuse_connections(cluster, luck.uniform(0.2, 3.0))
    return True


def freeze_postgres(cluster: Cluster, luck: random.Random) -> bool:
    main, others = postgres_processes(cluster)
    with frozen([main, *others]) as stopped:
        time.sleep(luck.uniform(1.0, PAST_THE_LEASE))
    return stopped


def clock_forward(cluster: Cluster, luck: random.Random) -> bool:
    assert cluster.servers is not None
    turn_clock(cluster.servers.database_url, CLOCK_JUMP_SECONDS)
    return True


def clock_back(cluster: Cluster, luck: random.Random) -> bool:
    assert cluster.servers is not None
    turn_clock(cluster.servers.database_url, -CLOCK_JUMP_SECONDS)
    return True


KILLED, ANYBODY, IF_LONG = MayLose.WHOM_IT_KILLED, MayLose.ANYBODY, MayLose.ANYBODY_IF_LONG
FAULTS = (
    Fault("training killed", "SIGKILL of a training process", kill_training, may_lose=KILLED),
    Fault("worker killed", "SIGKILL of a worker process", kill_worker, may_lose=KILLED),
    Fault("API killed", "SIGKILL of the API's process; embedded, of API and worker", kill_api, may_lose=KILLED),
    Fault("leader killed", "SIGKILL of the process that leads upkeep", kill_leader, may_lose=KILLED),
    Fault("worker stopped", "SIGTERM to a worker, which drains", stop_worker),
    # In the middle of a transaction, it keeps others from writing as well.
    Fault(
        "supervisor frozen",
        "SIGSTOP of a worker past its lease while its training goes on",
        freeze_supervisor,
        may_lose=ANYBODY,
    ),
    Fault(
        "worker frozen",
        "SIGSTOP of a worker and its training past the lease, then SIGCONT",
        freeze_with_training,
        may_lose=ANYBODY,
    ),
    Fault("two leaders", "upkeep done twice at the same time for a second", two_leaders),
    Fault("wake-ups doubled", f"{MANY} wake-ups for nothing", many_wakeups),
    Fault("wake-ups lost", "all waiting wake-ups removed", lose_wakeups),
    Fault("wake-ups reordered", "waiting wake-ups in another order", shuffle_wakeups),
    Fault("wake-ups torn", "waiting wake-ups cut off, as if their writers had been killed", tear_wakeups, False),
    Fault("disk full", "no byte more fits into the artifact store for three seconds", fill_disk),
    Fault("Redis emptied", "FLUSHALL", empty_redis, servers=True),
    Fault("Redis restarted", "stopped and started empty, up to two seconds later", restart_redis, servers=True),
    Fault(
        "PostgreSQL crashed",
        "SIGKILL of a server process: all connections end, recovery",
        crash_postgres,
        True,
        IF_LONG,
    ),
    Fault(
        "database away", "connections cut and refused for 30 seconds, five leases long", database_away, True, IF_LONG
    ),
    Fault("database away shortly", "connections cut and refused for up to 3 s", database_away_shortly, True, IF_LONG),
    Fault(
        "database silent", "all of PostgreSQL frozen for up to 8.5 s; connections hang", freeze_postgres, True, IF_LONG
    ),
    Fault("clock forward", f"the database's clock jumps {CLOCK_JUMP_SECONDS:g} s ahead", clock_forward, True, ANYBODY),
    Fault("clock back", f"the database's clock jumps {CLOCK_JUMP_SECONDS:g} s back", clock_back, servers=True),
)


def faults_of(cluster: Cluster) -> list[Fault]:
    """The faults that can befall this stack."""
    return [fault for fault in FAULTS if fault.servers in (None, cluster.servers is not None)]
