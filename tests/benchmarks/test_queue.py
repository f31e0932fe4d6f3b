from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from benchmarks.event_rate import Store, losses
from benchmarks.query_plans import explain, large_tables, overheard
from benchmarks.queue import Fleet, over_bar
from benchmarks.queue_rows import add_ended, add_kept, add_queue, lease_some, tenants, without_indexes
from jobstore import schema
from jobstore.database import Database, open_database
from jobstore.settings import Settings
from jobstore.states import drop_expired_states
from jobstore.storage import ArtifactFolder
from jobstore.tables import Job, State
from jobstore.upkeep import Upkeep
from jobstore.wakeups import Bell


@pytest.fixture
def settings(fresh_postgres_url: str, tmp_path: Path) -> Settings:
    return Settings.model_validate({"data_dir": tmp_path / "data", "database_url": fresh_postgres_url})


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = open_database(settings)
    schema.upgrade(database)
    yield database
    database.close()


def count_by(database: Database, column: object) -> dict[str, int]:
    with database.read() as session:
        return Counter(dict(session.execute(select(column, func.count()).select_from(Job).group_by(column)).all()))


def test_the_rows_are_jobs_that_are_claimed_lost_and_given_up(database: Database, settings: Settings) -> None:
    with database.write() as session:
        add_queue(session, jobs=80, tenant_count=4, spec={"model": {"name": "dlinear"}})
    with without_indexes(database), database.write() as session:
        add_ended(session, first=1, last=200, total=200, tenant_count=4)
    assert schema.differences(database) == []
    with database.write() as session:
        add_kept(session, jobs=100, total=200)
    assert count_by(database, Job.status) == {"queued": 80, "succeeded": 168, "failed": 28, "cancelled": 4}
    assert count_by(database, Job.tenant_id) == dict.fromkeys(tenants(4), 70)

    assert len(Fleet(database).claims(8)) == 8
    with database.read() as session:
        held = session.scalars(select(Job.tenant_id).where(Job.status == "running")).all()
    assert (len(held), {*held}) == (8, {*tenants(4)})

    with database.write() as session:
        lease_some(session, jobs=10, lease_seconds=-3600)
    Upkeep(database, ArtifactFolder(settings.resolved_artifacts_url, new=True), Bell(settings), settings).once()
    assert count_by(database, Job.status)["running"] == 8
    with database.write() as session:
        assert session.scalar(select(func.count()).select_from(State)) == 14
        session.execute(text("UPDATE jobs SET finished_at = finished_at - interval '1 year'"))
        session.execute(text("UPDATE states SET created_at = created_at - interval '1 year'"))
        assert drop_expired_states(session, now=session.scalar(select(func.now())), hours=1) == 14


def test_a_table_that_is_read_from_end_to_end_is_found(database: Database) -> None:
    with database.write() as session:
        add_queue(session, jobs=1, tenant_count=1, spec={})
        add_ended(session, first=1, last=3000, total=3000, tenant_count=1)
    with database.write() as session:
        session.execute(text("ANALYZE"))
    assert large_tables(database, 3000) == {"jobs"}

    with overheard(database.engine) as statements, database.read() as session:
        session.scalars(select(Job.id).where(Job.name == "nobody")).all()
        session.get(Job, "job_1")
    by_name, by_id = explain(database, statements)
    assert by_name.scans_all_of({"jobs", "states"}) == ["jobs"]
    assert by_id.scans_all_of({"jobs", "states"}) == []


def test_a_figure_over_its_bar_is_named() -> None:
    figures = {
        "claim": {"p95": 20.0, "highest": 90.0},
        "list, 20 jobs": {"p95": 50.1, "highest": 60.0},
        "upkeep, all": {"p95": 2.0, "highest": 1001.0},
    }
    assert [wrong.split(":")[0] for wrong in over_bar(figures)] == ["list, 20 jobs", "upkeep, all"]


def test_every_point_that_a_supervisor_hears_is_in_the_database(database: Database, settings: Settings) -> None:
    store = Store(database, settings)
    heard = store.supervise(losses(200, at_once=50))
    assert heard["points"] == 200 + 1  # and the sparsity at the start
    assert heard["seconds"] > 0
