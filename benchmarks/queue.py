"""How quick the queue is on PostgreSQL: claims, lists and upkeep beside 10,000 queued jobs of 20 tenants.

    make queue
    make queue ARGS='--ended 10000000'

With `--ended`, that many ended jobs are in the tables beside them, and the plans of all statements are written down.
The server is one of our own with durable settings: every claim is a transaction that is on the disk when it ends.
Exits with 1 when a figure is over its bar, or a large table is read from end to end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from rich.progress import track
from sqlalchemy import text
from sqlalchemy.orm import Session

from api.job_view import show_jobs
from benchmarks.command import run_command
from benchmarks.durable_database import durable_database, surroundings
from benchmarks.query_plans import Plan, explain, large_tables, overheard
from benchmarks.queue_rows import add_ended, add_kept, add_queue, lease_some, tenants, without_indexes
from jobstore.database import Database
from jobstore.fleet import crews
from jobstore.jobs import list_jobs, unfinished_count
from jobstore.leases import Lease, claim_next, finish
from jobstore.lifecycle import JobStatus
from jobstore.settings import Settings
from jobstore.storage import ArtifactFolder
from jobstore.tables import DEFAULT_TENANT
from jobstore.upkeep import Upkeep
from jobstore.wakeups import Bell
from jobstore.workers import DeviceClass, Slot, WorkerIdentity, announce
from pals_core.checkpoint.tensor_file import replacing
from pals_core.spec import Spec
from tests.eventually import eventually
from tests.servers.throwaway import free_port

BARS = {"claim": 20.0, "list": 50.0, "upkeep": 1000.0}  # milliseconds at the 95th percentile, an upkeep pass at most
LISTS: dict[str, dict[str, Any]] = {
    "list, 20 jobs": {},
    "list, 100 jobs": {"limit": 100},
    "list, 20 queued jobs": {"status": JobStatus.QUEUED},
    "list, 20 failed jobs": {"status": JobStatus.FAILED},
}
AT_WORK = 64  # slots of the fleet
CLAIMERS = 4
BATCH = 500_000
MOST_KEPT = 500_000  # jobs with checkpoints; what becomes of states after a week is not for a pass to do at once
LARGE = 100_000  # rows


def milliseconds(work: Callable[[], Any], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(1000 * (time.perf_counter() - began))
    return seconds


def summary(values: list[float]) -> dict[str, float]:
    return {
        "runs": len(values),
        "median": round(statistics.median(values), 2),
        "p95": round(statistics.quantiles(values, n=20)[-1], 2),
        "highest": round(max(values), 2),
    }


class Fleet:
    """Workers with `AT_WORK` slots, which claim as they please; the oldest job ends when all slots are taken."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._working: list[Lease] = []
        self._lock = threading.Lock()

    def claim(self) -> None:
        with self._database.write() as session:
            lease = claim_next(session, "wrk_fleet", (DeviceClass.CPU, DeviceClass.AUTO), lease_seconds=3600)
        assert lease is not None
        with self._lock:
            self._working.append(lease)

    def make_room(self) -> None:
        with self._lock:
            over, self._working = self._working[:-AT_WORK], self._working[-AT_WORK:]
        for lease in over:
            with self._database.write() as session:
                finish(session, lease, JobStatus.SUCCEEDED, message="done", runtime_seconds=60.0)

    def claims(self, count: int) -> list[float]:
        """Milliseconds of claims, one after another."""
        values = []
        for _ in range(count):
            values += milliseconds(self.claim, 1)
            self.make_room()
        return values

    def claims_at_once(self, count: int) -> list[float]:
        """Milliseconds of claims by several threads at once."""
        values: list[float] = []
        threads = [
            threading.Thread(target=lambda: values.extend(self.claims(count // CLAIMERS))) for _ in range(CLAIMERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return values


def fill(database: Database, arguments: argparse.Namespace) -> None:
    spec = Spec.model_validate({"data": {"horizon": 24}}).model_dump(mode="json")
    with database.write() as session:
        add_queue(session, jobs=arguments.queued, tenant_count=arguments.tenants, spec=spec)
    if arguments.ended:
        with without_indexes(database):
            for first in track(range(1, arguments.ended + 1, BATCH), "ended jobs"):
                last = min(first + BATCH - 1, arguments.ended)
                with database.write() as session:
                    session.execute(text("SET LOCAL statement_timeout = 0"))
                    # Nobody doubts that their dataset is there.
                    session.execute(text("SET LOCAL session_replication_role = replica"))
                    add_ended(session, first=first, last=last, total=arguments.ended, tenant_count=arguments.tenants)
        with database.write() as session:
            session.execute(text("SET LOCAL statement_timeout = 0"))
            add_kept(session, jobs=min(arguments.ended // 10, MOST_KEPT), total=arguments.ended)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
    with database.write() as session:
        slots = tuple(Slot(f"cpu-{number}", (DeviceClass.CPU, DeviceClass.AUTO), 1) for number in range(AT_WORK))
        announce(session, WorkerIdentity(slots, {}, id="wrk_fleet"))


@contextmanager
def api(settings: Settings) -> Iterator[httpx.Client]:
    """An API process on the same database, whose upkeep waits until all is over."""
    port = str(free_port())
    environment = {
        **os.environ,
        "PALS_DATA_DIR": str(settings.data_dir),
        "PALS_DATABASE_URL": settings.resolved_database_url,
        "PALS_PORT": port,
        "PALS_UPKEEP_SECONDS": "3600",
        "PALS_LOG_LEVEL": "warning",
    }
    process = subprocess.Popen([sys.executable, "-m", "cli.main", "api"], env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            eventually(lambda: answers(client), "the API answers", 60)
            yield client
    finally:
        process.terminate()
        process.wait()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").is_success
    except httpx.TransportError:
        return False


def measure(database: Database, settings: Settings, upkeep: Upkeep, repeats: int) -> dict[str, dict[str, float]]:
    figures = {}
    fleet = Fleet(database)
    fleet.claims(AT_WORK)
    figures["claim"] = summary(fleet.claims(repeats))
    figures[f"{CLAIMERS} claims at once"] = summary(fleet.claims_at_once(repeats))
    with api(settings) as client:
        for name, options in LISTS.items():
            ask = partial(client.get, "/v1/jobs", params=options)
            figures[name] = summary(milliseconds(lambda ask=ask: ask().raise_for_status(), repeats // 4))
    figures["upkeep, nothing to do"] = summary(milliseconds(upkeep.once, max(4, repeats // 40)))
    losses = []
    for _ in range(max(4, repeats // 40)):
        with database.write() as session:
            lease_some(session, jobs=100, lease_seconds=-3600)
        losses += milliseconds(upkeep.once, 1)
    figures["upkeep, 100 leases have ended"] = summary(losses)
    return figures


def plans(database: Database, upkeep: Upkeep) -> dict[str, list[Plan]]:
    """What the database does for each of these, by the statements that it was seen to be asked."""
    fleet = Fleet(database)
    found = {}

    def plan(name: str, work: Callable[[], Any]) -> None:
        with overheard(database.engine) as statements:
            work()
        found[name] = explain(database, statements)

    plan("claim", fleet.claim)
    plan("upkeep pass", upkeep.once)
    for name, options in LISTS.items():
        plan(name, partial(listed, database, options))
    plan("unfinished jobs of a tenant", partial(asked, database, unfinished_count))
    plan("living workers", partial(asked, database, lambda session, _: crews(session)))
    return found


def asked(database: Database, question: Callable[[Session, str], Any]) -> None:
    with database.read() as session:
        question(session, DEFAULT_TENANT)


def listed(database: Database, options: dict[str, Any]) -> None:
    """As the API lists them."""
    with database.read() as session:
        show_jobs(session, list_jobs(session, DEFAULT_TENANT, **{"limit": 20, **options}).rows)


def over_bar(figures: dict[str, dict[str, float]]) -> list[str]:
    wrong = []
    for name, values in figures.items():
        kind = name.split(",")[0]
        if kind not in BARS:
            continue  # claims at once: threads of this one process wait for one another, as workers do not
        value = values["highest" if kind == "upkeep" else "p95"]
        if value > BARS[kind]:
            wrong.append(f"{name}: {value:g} ms, the bar is {BARS[kind]:g}")
    return wrong


def page(found: dict[str, list[Plan]], content: dict[str, Any]) -> str:
    lines = [
        f"# Plans of the queue beside {content['ended']:,} ended jobs",
        "",
        f"{content['date']}, commit {content['commit']}, PostgreSQL {content['postgresql']}; {content['queued']:,} "
        f"queued jobs of {content['tenants']} tenants, and of the latest ended ones checkpoints, states and events. "
        "Statements are shortened.",
    ]
    for name, all_of_it in found.items():
        lines += ["", f"## {name}"]
        for plan in all_of_it:
            lines += ["", "```", " ".join(plan.statement.split())[:200], "", *plan.lines, "```"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queued", type=int, default=10_000, help="queued jobs")
    parser.add_argument("--tenants", type=int, default=20)
    parser.add_argument("--ended", type=int, default=0, help="ended jobs beside them; also write down the plans")
    parser.add_argument("--repeats", type=int, default=800, help="measured claims; others in proportion")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="folder")
    arguments = parser.parse_args()
    with durable_database("queue") as (database, settings):
        fill(database, arguments)
        kept = settings.model_copy(update={"event_retention_days": 365.0, "metric_retention_days": 365.0})
        upkeep = Upkeep(database, ArtifactFolder(settings.resolved_artifacts_url, new=True), Bell(settings), kept)
        content = surroundings(database) | {
            "queued": arguments.queued,
            "tenants": len(tenants(arguments.tenants)),
            "ended": arguments.ended,
            "milliseconds": measure(database, settings, upkeep, arguments.repeats),
        }
        wrong = over_bar(content["milliseconds"])
        name = "queue"
        if arguments.ended:
            name = "queue_large"
            found = plans(database, upkeep)
            large = large_tables(database, LARGE)
            content["large_tables"] = sorted(large)
            for what, all_of_it in found.items():
                wrong += [f"{what}: reads all of {table}" for plan in all_of_it for table in plan.scans_all_of(large)]
            with replacing(arguments.output / f"{name}_plans.md") as part:
                part.write_text(page(found, content))
        content["over the bars"] = wrong
    with replacing(arguments.output / f"{name}.json") as part:
        part.write_text(json.dumps(content, indent=1) + "\n")
    for what, values in content["milliseconds"].items():
        print(f"{what:<32} median {values['median']:8.2f} ms, p95 {values['p95']:8.2f} ms")
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    run_command(main)
