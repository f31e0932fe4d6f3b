"""A service of several processes that may be killed, frozen and started again, one by one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from jobstore.database import Database, open_database
from jobstore.settings import Settings
from jobstore.storage import ArtifactFolder
from tests.chaos.clock import install_clock
from tests.e2e.stacks import PALS, free_port
from tests.eventually import eventually
from tests.servers import postgres, redis
from tests.servers.throwaway import ServerUnavailable

LEASE_SECONDS, GRACE_SECONDS = 6.0, 1.0
ARTIFACTS = "artifacts"  # the folder of the production stack's
QUICK = {
    "PALS_LEASE_SECONDS": str(LEASE_SECONDS),
    "PALS_LEASE_GRACE_SECONDS": str(GRACE_SECONDS),
    "PALS_UPKEEP_SECONDS": "0.3",
    "PALS_STATE_INTERVAL_SECONDS": "1",
}


@dataclass
class Servers:
    """The servers of the production stack: where PostgreSQL and the service's database are, and the broker."""

    postgres_url: str
    database_url: str
    redis: redis.RestartableRedis


@dataclass
class Cluster:
    """What runs and how to start it again; the parts are the processes that we start ourselves."""

    name: str
    folder: Path
    environment: dict[str, str]
    commands: dict[str, list[str]]
    servers: Servers | None = None
    parts: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    starts: int = 0

    def __post_init__(self) -> None:
        self.settings = Settings.model_validate({name[5:].lower(): value for name, value in self.environment.items()})
        self.database: Database = open_database(self.settings)
        self.artifacts = ArtifactFolder(self.settings.resolved_artifacts_url, new=True)
        self.base_url = f"http://127.0.0.1:{self.settings.port}"

    @property
    def api(self) -> str:
        """The part that answers HTTP."""
        return next(iter(self.commands))

    def start(self, part: str) -> None:
        """Start a part, or start it again."""
        self.starts += 1
        with (self.folder / f"{part}.{self.starts}.log").open("wb") as log:
            self.parts[part] = subprocess.Popen(
                self.commands[part],
                env={**os.environ, **self.environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_what_died(self) -> None:
        """Start every part again that does not run, as a service manager does."""
        for part, process in self.parts.items():
            if process.poll() is not None:
                assert process.stdin is not None
                process.stdin.close()
                self.start(part)

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.base_url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def workers(self) -> list[psutil.Process]:
        """The worker processes, whoever started them."""
        return [process for process in self.processes() if command_of(process)[-2:-1] == ["worker"]]

    def trainings(self) -> dict[psutil.Process, str]:
        """The training processes at work, and the job of each."""
        jobs = {process: job_of(process, self.settings.scratch_dir) for process in self.processes()}
        return {process: job for process, job in jobs.items() if job is not None}

    def processes(self) -> list[psutil.Process]:
        """The parts that run, and all that they started."""
        found: list[psutil.Process] = []
        for part in self.parts.values():
            with suppress(psutil.Error):
                root = psutil.Process(part.pid)
                found += [root, *root.children(recursive=True)]
        return found

    def stop(self) -> None:
        """SIGTERM, as a service manager would; raises TimeoutError when a part does not end."""
        running = {part: process for part, process in self.parts.items() if process.poll() is None}
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        late = []
        for part, process in running.items():
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                late.append(part)
        for process in self.parts.values():
            assert process.stdin is not None
            process.stdin.close()
        self.database.close()
        if late:
            raise TimeoutError(f"did not stop within 40 s of SIGTERM: {', '.join(late)}")


def command_of(process: psutil.Process) -> list[str]:
    """The arguments of a process; none when it is gone."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def job_of(process: psutil.Process, scratch: Path) -> str | None:
    """The job that a training process works on: it runs in that job's folder."""
    try:
        folder = Path(process.cwd())
    except (psutil.Error, OSError):
        return None
    return folder.name.rpartition("-")[0] if scratch in folder.parents and folder.name.startswith("job_") else None


@contextmanager
def embedded(folder: Path, *, workers: int, settings: Mapping[str, str] = QUICK) -> Iterator[Cluster]:
    """`pals serve`, with its own worker, on SQLite and messages as files; the other workers beside it."""
    environment = {**settings, "PALS_DATA_DIR": str(folder / "data"), "PALS_PORT": str(free_port())}
    commands = {"serve": [*PALS, "serve", "--exit-with-parent"]}
    commands |= {f"worker{number}": [*PALS, "worker", "--exit-with-parent"] for number in range(2, workers + 1)}
    with _running(Cluster("embedded", folder, environment, commands)) as cluster:
        yield cluster


@contextmanager
def production(folder: Path, *, workers: int, settings: Mapping[str, str] = QUICK) -> Iterator[Cluster]:
    """`pals api` and workers, on a PostgreSQL and a Redis of its own."""
    installation, program = postgres.installed() or postgres.from_wheel(), redis.installed() or redis.from_wheel()
    if installation is None or program is None:
        raise ServerUnavailable("chaos needs programs of PostgreSQL and Redis, to stop and start servers of its own")
    with ExitStack() as stack:
        server = stack.enter_context(postgres.started(installation))
        broker = stack.enter_context(redis.restartable(program))
        database_url = server.create_database()
        environment = {
            **settings,
            "PALS_DATA_DIR": str(folder / "data"),
            "PALS_PORT": str(free_port()),
            "PALS_DATABASE_URL": database_url,
            "PALS_BROKER_URL": broker.url,
            "PALS_ARTIFACTS_URL": (folder / ARTIFACTS).as_uri(),
        }
        subprocess.run(
            [*PALS, "migrate"], env={**os.environ, **environment}, check=True, timeout=60, stdout=subprocess.DEVNULL
        )
        install_clock(database_url)
        commands = {"api": [*PALS, "api"]}
        commands |= {f"worker{number}": [*PALS, "worker", "--exit-with-parent"] for number in range(1, workers + 1)}
        servers = Servers(server.url, database_url, broker)
        with _running(Cluster("production", folder, environment, commands, servers)) as cluster:
            yield cluster


@contextmanager
def _running(cluster: Cluster) -> Iterator[Cluster]:
    try:
        for number, part in enumerate(cluster.commands):
            cluster.start(part)
            if not number:
                # Whoever comes first makes the database and the folders.
                eventually(lambda: _answers(cluster), "the service answers", 60)
        eventually(cluster.is_ready, "the service is ready", 60)
        yield cluster
    finally:
        cluster.stop()


def _answers(cluster: Cluster) -> bool:
    try:
        return httpx.get(f"{cluster.base_url}/healthz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
