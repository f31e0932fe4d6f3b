"""Whose turn it is: the order of the queue, and how many jobs come before one in it.

Priority decides first. Among jobs of equal priority comes the tenant with the fewest jobs at work, of such tenants
the one that was served longest ago, and of a tenant's own jobs the oldest: so one that queues five hundred jobs
does not keep another's single job waiting for them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import aliased

from jobstore.lifecycle import LEASED_STATUSES, JobStatus
from jobstore.tables import Job, Turn, in_turn

if TYPE_CHECKING:
    from sqlalchemy import BindParameter, Subquery, Update
    from sqlalchemy.orm import Session


def is_queued(job: type[Job] = Job) -> ColumnElement[bool]:
    """Whether a job is queued, as the indexes of the queue say it: with the state written out, not as a parameter."""
    return job.status == literal(JobStatus.QUEUED.value, literal_execute=True)


def claimable(now: datetime | BindParameter[datetime], job: type[Job] = Job) -> ColumnElement[bool]:
    """Whether a job waits for nothing but a worker."""
    return and_(is_queued(job), or_(job.not_before.is_(None), job.not_before <= now))


def take_a_place(session: Session, tenant_id: str) -> None:
    """Let a tenant that queues a job have turns."""
    row = {"tenant_id": tenant_id, "served": 0}
    if session.get_bind().dialect.name == "sqlite":
        session.execute(sqlite.insert(Turn).values(row).on_conflict_do_nothing())
    else:
        session.execute(postgresql.insert(Turn).values(row).on_conflict_do_nothing())


def lock_next(session: Session, device_classes: Collection[str], *, now: datetime) -> Job | None:
    """The job whose turn it is, under its row lock, or None; a row that another worker is just taking is passed over.

    On SQLite the write transaction already excludes the others.
    """
    values = {"now": now, "device_classes": [*device_classes]}
    job = session.scalar(_first_by_turn(), values)
    if job is not None:
        return job
    # Other workers are just taking every tenant's first job, or there is none.
    return session.scalar(_first_by_age(), values)


# Made once: putting these together takes longer than the database takes to answer them.
@cache
def _first_by_turn() -> Select[Job]:
    first = aliased(Job)
    first_of_tenant = (
        select(first.id)
        .where(first.tenant_id == Turn.tenant_id, _for_the_taking(first))
        .order_by(*in_turn(first))
        .limit(1)
        .correlate(Turn)
        .scalar_subquery()
    )
    at_work = _at_work()
    return (
        select(Job)
        .join(Turn, Job.id == first_of_tenant)
        .outerjoin(at_work, at_work.c.tenant_id == Turn.tenant_id)
        .where(is_queued())
        .order_by(Job.priority.desc(), func.coalesce(at_work.c.jobs, 0), Turn.served, Turn.tenant_id)
        .limit(1)
        .with_for_update(of=Job, skip_locked=True)
    )


@cache
def _first_by_age() -> Select[Job]:
    return select(Job).where(_for_the_taking(Job)).order_by(*in_turn(Job)).limit(1).with_for_update(skip_locked=True)


def _for_the_taking(job: type[Job]) -> ColumnElement[bool]:
    now = bindparam("now", type_=Job.not_before.type)
    return and_(claimable(now, job), job.device_class.in_(bindparam("device_classes", expanding=True)))


def note_served(session: Session, tenant_id: str) -> None:
    """Put a tenant behind those of as many jobs at work; one that is being served at this moment is there already."""
    session.execute(_serving(), {"tenant": tenant_id})


@cache
def _serving() -> Update:
    # Counted, not timed: a clock may be set.
    mine = select(Turn.tenant_id).where(Turn.tenant_id == bindparam("tenant")).with_for_update(skip_locked=True)
    latest = select(func.max(aliased(Turn).served)).scalar_subquery()
    return (
        update(Turn)
        .where(Turn.tenant_id.in_(mine))
        .values(served=latest + 1)
        .execution_options(synchronize_session=False)
    )


@dataclass(frozen=True)
class Standing:
    """A tenant in the queue: its jobs that workers hold, when it was served, and its queued jobs by priority."""

    tenant_id: str
    at_work: int
    served: int
    queued: Mapping[int, int]

    def beside(self, other: Standing, priority: int) -> Rivals:
        """This tenant's jobs, as they stand to another's of a priority."""
        higher = sum(count for theirs, count in self.queued.items() if theirs > priority)
        # A tenant's n-th job has its turn when n - 1 more are at work.
        before_first = self.at_work + higher - other.at_work + (self._first_of_equals > other._first_of_equals)
        return Rivals(higher, before_first, self.queued.get(priority, 0))

    @property
    def _first_of_equals(self) -> tuple[int, int, str]:
        # Who has fewer at work now will have been served by the time that it has as many.
        return -self.at_work, self.served, self.tenant_id


class Rivals(NamedTuple):
    """A tenant's jobs of higher and of equal priority than those of another, in whose own order is counted.

    Of the `equal` ones the first comes right after the other's job number `before_first` (from 1), if there are as
    many, and each further one after one more.
    """

    higher: int
    before_first: int
    equal: int

    def ahead_of(self, own: int) -> int:
        """How many of them come before the other's `own`-th job."""
        return self.higher + min(max(0, own - self.before_first), self.equal)


def queue_positions(session: Session, jobs: Collection[Job]) -> dict[str, int]:
    """How many queued jobs come before each of these jobs that are queued themselves, if none ends or is added.

    Jobs that need another device count too: a worker with a GPU takes them all in this order.
    """
    standings = _standings(session)
    asked = {job.id for job in jobs}
    values = {"tenants": list({job.tenant_id for job in jobs}), "first": min(asked), "last": max(asked)}
    rivals: dict[tuple[str, int], list[Rivals]] = {}
    positions = {}
    for job_id, tenant_id, priority, own in session.execute(_places_of_their_own(), values):
        if job_id in asked and (mine := standings.get(tenant_id)) is not None:
            if (beside := rivals.get((tenant_id, priority))) is None:
                others = (standing for standing in standings.values() if standing is not mine)
                beside = rivals[tenant_id, priority] = [other.beside(mine, priority) for other in others]
            positions[job_id] = own - 1 + sum(theirs.ahead_of(own) for theirs in beside)
    return positions


@cache
def _places_of_their_own() -> Select[str, str, int, int]:
    """Queued jobs in a range of identifiers, their tenants and priorities, and which of its tenant's each is."""
    own = func.row_number().over(partition_by=Job.tenant_id, order_by=in_turn(Job))
    queue = (
        select(Job.id, Job.tenant_id, Job.priority, own.label("own"))
        .where(is_queued(), Job.tenant_id.in_(bindparam("tenants", expanding=True)))
        .subquery()
    )
    # A page of jobs is a range of them; to name a hundred one by one takes longer than to look.
    return select(queue).where(queue.c.id.between(bindparam("first"), bindparam("last")))


def _standings(session: Session) -> dict[str, Standing]:
    standings: dict[str, Standing] = {}
    for tenant_id, held, served, priority, count in session.execute(_tenants_by_priority()):
        before = standings[tenant_id].queued if tenant_id in standings else {}
        standings[tenant_id] = Standing(tenant_id, held, served, {**before, priority: count})
    return standings


@cache
def _tenants_by_priority() -> Select[str, int, int, int, int]:
    """The tenants in the queue, the jobs that workers hold for them, when they were served, and a priority's jobs."""
    at_work = _at_work()
    queued = (
        select(Job.tenant_id, Job.priority, func.count().label("jobs"))
        .where(is_queued())
        .group_by(Job.tenant_id, Job.priority)
        .subquery()
    )
    return (
        select(Turn.tenant_id, func.coalesce(at_work.c.jobs, 0), Turn.served, queued.c.priority, queued.c.jobs)
        .join(queued, queued.c.tenant_id == Turn.tenant_id)
        .outerjoin(at_work, at_work.c.tenant_id == Turn.tenant_id)
    )


def _at_work() -> Subquery:
    """How many jobs of each tenant workers hold."""
    return (
        select(Job.tenant_id, func.count().label("jobs"))
        .where(Job.status.in_([*LEASED_STATUSES]))
        .group_by(Job.tenant_id)
        .subquery()
    )
