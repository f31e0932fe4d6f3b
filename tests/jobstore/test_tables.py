from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import IntegrityError, StatementError

from jobstore.tables import Artifact, Base, Job, Leader

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store

NOON_IN_KOLKATA = datetime(2026, 3, 1, 12, 0, 0, 123456, timezone(timedelta(hours=5, minutes=30)))


def test_a_time_comes_back_as_the_same_moment_in_utc(store: Store) -> None:
    with store.database.write() as session:
        session.add(Leader(name="times", holder="me", expires_at=NOON_IN_KOLKATA))
    with store.database.read() as session:
        stored = session.get_one(Leader, "times").expires_at

    assert stored == NOON_IN_KOLKATA
    assert stored.isoformat() == "2026-03-01T06:30:00.123456+00:00"
    assert stored.tzinfo is UTC


def test_a_time_without_a_zone_is_refused(store: Store) -> None:
    with pytest.raises(StatementError, match="needs a time zone"), store.database.write() as session:
        session.add(Leader(name="times", holder="me", expires_at=datetime(2026, 3, 1, 12)))


def test_a_state_outside_the_list_is_refused_by_the_database_too(store: Store) -> None:
    with pytest.raises(IntegrityError), store.database.write() as session:
        session.add(Artifact(id="art_1", tenant_id="default", key="k", status="torn", created_at=datetime.now(UTC)))


def test_a_job_without_its_dataset_is_refused_by_the_database_too(store: Store) -> None:
    with pytest.raises(IntegrityError):
        store.queue(dataset="ds_unknown")


def test_texts_and_large_numbers_come_back_whole(store: Store) -> None:
    job_id = store.queue(metadata={"größe": "10 µm — 日本 🌡"})
    with store.database.write() as session:
        job = session.get_one(Job, job_id)
        job.event_seq = 2**40
        job.spec = {"training": {"seed": 2**63 - 1, "learning_rate": 1e-4}}

    job = store.job(job_id)
    assert (job.event_seq, job.job_metadata) == (2**40, {"größe": "10 µm — 日本 🌡"})
    assert job.spec == {"training": {"seed": 2**63 - 1, "learning_rate": 1e-4}}


def test_every_row_that_belongs_to_a_tenant_names_it() -> None:
    shared = {"leaders", "retentions", "workers"}
    assert {name for name, table in Base.metadata.tables.items() if "tenant_id" not in table.columns} == shared
