from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from jobstore.metrics import MetricSeries, Point, read_series, write_points
from jobstore.tables import Base, Job, Metric

if TYPE_CHECKING:
    from tests.jobstore.conftest import Store


def series_of(store: Store, job_id: str, max_points: int = 1000, names: list[str] | None = None) -> list[MetricSeries]:
    with store.database.read() as session:
        return read_series(session, job_id, names=names, max_points=max_points)


def test_series_come_in_columns_ordered_by_step(store: Store) -> None:
    lease = store.run()
    store.record(
        lease, 1, points=[Point("train_loss", 2, 0.25), Point("train_loss", 1, 0.5), Point("sparsity", 2, 0.1)]
    )

    found = series_of(store, lease.job_id)
    assert [(series.name, [*series.steps], [*series.values]) for series in found] == [
        ("sparsity", [2], [0.1]),
        ("train_loss", [1, 2], [0.5, 0.25]),
    ]
    assert [series.name for series in series_of(store, lease.job_id, names=["train_loss", "unknown"])] == ["train_loss"]


def test_a_point_that_is_written_again_keeps_its_first_value(store: Store) -> None:
    lease = store.run()
    store.record(lease, 1, points=[Point("train_loss", 1, 0.5)])
    store.record(lease, 2, points=[Point("train_loss", 1, 9.9), Point("train_loss", 2, 0.25)])

    [series] = series_of(store, lease.job_id)
    assert [*series.values] == [0.5, 0.25]


def test_thinning_takes_every_kth_point_and_the_last(store: Store) -> None:
    lease = store.run()
    store.record(lease, 1, points=[Point("train_loss", step, step / 10) for step in range(1, 11)])

    [series] = series_of(store, lease.job_id, max_points=4)
    assert [*series.steps] == [1, 4, 7, 10]
    [series] = series_of(store, lease.job_id, max_points=1)
    assert [*series.steps] == [10]


def test_a_job_without_numbers_has_no_series(store: Store) -> None:
    assert series_of(store, store.queue()) == []


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """A transaction on tables without other rows, for the many examples of a property."""
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{Path(folder) / 'metrics.db'}")
        Base.metadata.create_all(engine, tables=[Metric.__table__, Job.__table__])  # type: ignore[list-item]
        with Session(engine) as session:
            yield session
        engine.dispose()


@given(steps=st.sets(st.integers(1, 10**9), min_size=1, max_size=60), max_points=st.integers(1, 70))
def test_a_thinned_series_holds_real_points_with_the_last_and_no_more_than_asked(
    session: Session, steps: set[int], max_points: int
) -> None:
    job = Job(id="job_1", tenant_id="default")
    with session.begin_nested() as attempt:
        write_points(session, job, [Point("train_loss", step, step / 7) for step in steps])
        [series] = read_series(session, "job_1", names=None, max_points=max_points)
        attempt.rollback()

    assert 1 <= len(series.steps) <= max_points
    assert series.steps[-1] == max(steps)
    assert [*series.steps] == sorted(series.steps)
    assert set(series.steps) <= steps
    assert [*series.values] == [step / 7 for step in series.steps]
    if len(steps) <= max_points:
        assert set(series.steps) == steps
