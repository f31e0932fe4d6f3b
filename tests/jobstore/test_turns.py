"""How tenants share the workers."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from jobstore.leases import finish
from jobstore.lifecycle import JobStatus
from jobstore.tables import Job
from jobstore.turns import queue_positions

if TYPE_CHECKING:
    from jobstore.leases import Lease
    from tests.jobstore.conftest import Store


def end(store: Store, lease: Lease) -> None:
    with store.database.write() as session:
        finish(session, lease, JobStatus.SUCCEEDED, message="done", runtime_seconds=1.0)


def ahead(store: Store, job_ids: list[str]) -> list[int]:
    with store.database.read() as session:
        positions = queue_positions(session, session.scalars(select(Job).where(Job.id.in_(job_ids))).all())
    return [positions[job_id] for job_id in job_ids]


def served(store: Store, count: int, *, slots: int) -> list[str]:
    """The tenants of the next jobs that are claimed; the oldest at work ends when all slots are taken."""
    working: list[Lease] = []
    tenants = []
    for _ in range(count):
        if len(working) == slots:
            end(store, working.pop(0))
        lease = store.claim()
        assert lease is not None
        working.append(lease)
        tenants.append(store.job(lease.job_id).tenant_id)
    return tenants


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_a_tenants_many_jobs_do_not_keep_anothers_one_waiting(store: Store, slots: int) -> None:
    dataset = store.dataset()
    for _ in range(20):
        store.queue(dataset=dataset, tenant="many")
    assert served(store, 4, slots=slots) == ["many"] * 4
    store.queue(dataset=dataset, tenant="one")

    assert served(store, 2, slots=slots)[0] == "one"


def test_with_one_slot_tenants_take_turns_whatever_they_queued(store: Store) -> None:
    dataset = store.dataset()
    for tenant, count in (("a", 6), ("b", 2), ("c", 3)):
        for _ in range(count):
            store.queue(dataset=dataset, tenant=tenant)

    assert "".join(served(store, 11, slots=1)) == "abcabcacaaa"


def test_who_has_fewer_jobs_at_work_goes_first_even_if_served_last(store: Store) -> None:
    dataset = store.dataset()
    for tenant in "aaab":
        store.queue(dataset=dataset, tenant=tenant)
    for _ in range(4):
        assert store.claim() is not None
    short = store.queue(dataset=dataset, tenant="b")
    store.queue(dataset=dataset, tenant="a")

    lease = store.claim()
    assert lease is not None
    assert lease.job_id == short


def test_a_higher_priority_goes_before_any_turn(store: Store) -> None:
    dataset = store.dataset()
    store.queue(dataset=dataset, tenant="b")
    urgent = [store.queue(dataset=dataset, tenant="a", priority=1) for _ in range(3)]

    claimed = [store.claim() for _ in urgent]
    assert [lease.job_id for lease in claimed if lease is not None] == urgent


def test_a_tenant_whose_jobs_need_another_device_holds_nobody_up(store: Store) -> None:
    dataset = store.dataset()
    store.queue(dataset=dataset, tenant="a", device="cuda", priority=9)
    wanted = store.queue(dataset=dataset, tenant="b")

    lease = store.claim(devices=("cpu", "auto"))
    assert lease is not None
    assert lease.job_id == wanted


def test_jobs_ahead_counts_in_the_order_in_which_jobs_are_claimed(store: Store) -> None:
    dataset = store.dataset()
    jobs = [store.queue(dataset=dataset, priority=priority) for priority in (0, 5, 0, -5, 5)]

    expected = dict(zip(jobs, ahead(store, jobs), strict=True))
    claimed = [lease.job_id for lease in iter(store.claim, None)]

    assert [expected[job_id] for job_id in claimed] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(8))
def test_any_queue_is_served_by_priority_then_turns_and_in_the_order_that_was_announced(
    store: Store, seed: int
) -> None:
    chance = random.Random(seed)
    dataset = store.dataset()
    tenants = "abcd"[: chance.randint(2, 4)]
    history = [store.queue(dataset=dataset, tenant=chance.choice(tenants)) for _ in range(chance.randint(0, 8))]
    leases = [store.claim() for _ in history]
    at_work: Counter[str] = Counter()
    for lease in leases:
        assert lease is not None
        if chance.random() < 0.5:
            end(store, lease)
        else:
            at_work[store.job(lease.job_id).tenant_id] += 1

    waiting = {}
    for _ in range(14):
        tenant, priority = chance.choice(tenants), chance.choice([0, 0, 0, 5]) if seed % 2 else 0
        waiting[store.queue(dataset=dataset, tenant=tenant, priority=priority)] = (tenant, priority)
    announced = dict(zip(waiting, ahead(store, [*waiting]), strict=True))

    for turn in itertools.count():
        lease = store.claim()
        if lease is None:
            break
        tenant, priority = waiting.pop(lease.job_id)
        rivals = [other for other, theirs in [*waiting.values(), (tenant, priority)] if theirs == priority]
        assert priority >= max((theirs for _, theirs in waiting.values()), default=priority)
        assert at_work[tenant] == min(at_work[rival] for rival in rivals)
        if not seed % 2:  # later on, the order of tenants with other priorities at work is not foreseen exactly
            assert announced[lease.job_id] == turn
        at_work[tenant] += 1
    assert not waiting
