"""The numbers of a job over its steps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from jobstore.tables import Metric

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from jobstore.tables import Job


@dataclass(frozen=True)
class Point:
    """One value of one series at one optimiser step."""

    name: str
    step: int
    value: float


@dataclass(frozen=True)
class MetricSeries:
    """One series, in columns."""

    name: str
    steps: Sequence[int]
    values: Sequence[float]


def write_points(session: Session, job: Job, points: Sequence[Point]) -> None:
    """Add points; one that is already there keeps its value."""
    if not points:
        return
    rows = [
        {"job_id": job.id, "tenant_id": job.tenant_id, "name": point.name, "step": point.step, "value": point.value}
        for point in points
    ]
    if session.get_bind().dialect.name == "sqlite":
        session.execute(sqlite.insert(Metric).on_conflict_do_nothing(), rows)
    else:
        session.execute(postgresql.insert(Metric).on_conflict_do_nothing(), rows)


def forget_points(session: Session, job: Job, *, after: int) -> None:
    """Remove the points of all steps after this one, which are about to be done again; 0 removes step 0 as well."""
    points = delete(Metric).where(Metric.job_id == job.id)
    session.execute(points.where(Metric.step > after) if after else points)


def copy_points(session: Session, source: Job, job: Job, *, up_to: int) -> None:
    """Give a new job the points of the one it goes on from, until this step."""
    columns = (Metric.name, Metric.step, Metric.tenant_id, Metric.value)
    points = select(literal(job.id), *columns).where(Metric.job_id == source.id, Metric.step <= up_to)
    session.execute(insert(Metric).from_select(["job_id", "name", "step", "tenant_id", "value"], points))


def read_series(session: Session, job_id: str, *, names: Collection[str] | None, max_points: int) -> list[MetricSeries]:
    """The series of a job, each thinned to at most `max_points` points that include its last.

    Thinning takes every k-th row by rank and always the last, so it never makes a value up.
    """
    query = select(Metric.name, func.count()).where(Metric.job_id == job_id).group_by(Metric.name)
    if names is not None:
        query = query.where(Metric.name.in_([*names]))
    series = []
    for name, count in session.execute(query.order_by(Metric.name)).all():
        stride = -(-count // max_points)
        ranked = (
            select(Metric.step, Metric.value, func.row_number().over(order_by=Metric.step.desc()).label("rank"))
            .where(Metric.job_id == job_id, Metric.name == name)
            .subquery()
        )
        rows = session.execute(
            select(ranked.c.step, ranked.c.value).where((ranked.c.rank - 1) % stride == 0).order_by(ranked.c.step)
        ).all()
        series.append(MetricSeries(name, [row.step for row in rows], [row.value for row in rows]))
    return series
