"""A loss counts, and nothing but a fault that may have cost it accounts for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobstore import schema
from jobstore.database import now
from jobstore.leases import Lease, expire_leases, lose, release, wait_for_storage
from jobstore.lifecycle import StatusReason
from jobstore.workers import Slot, WorkerIdentity, announce
from tests.chaos.cluster import Cluster
from tests.chaos.losses import LONG_SECONDS, Exposed, Loss, MayLose, causeless, exposed, losses_in, standing
from tests.jobstore.conftest import Store

PID = 4711


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A service that never ran, with the row of a worker."""
    cluster = Cluster("none", tmp_path, {"PALS_DATA_DIR": str(tmp_path / "data")}, {"serve": []})
    schema.upgrade(cluster.database)
    with cluster.database.write() as session:
        announce(session, WorkerIdentity((Slot("cpu-0", (), 1),), {}, id="wrk_1", pid=PID))
    yield cluster
    cluster.database.close()


@pytest.fixture
def store(cluster: Cluster) -> Store:
    return Store(cluster.database, cluster.settings, cluster.artifacts)


def kill_child(store: Store, lease: Lease) -> None:
    with store.database.write() as session:
        lose(session, lease, message="the training process was killed", runtime_seconds=1)


def losses_of(store: Store, job_id: str) -> list[Loss]:
    return list(losses_in(store.log(job_id)))


def test_losses_are_counted_though_a_saved_state_makes_the_job_forget_them(store: Store) -> None:
    lease = store.run()
    kill_child(store, lease)
    again = store.claim("wrk_2")
    assert again is not None
    store.save_state(again, 1, 3)
    assert store.job(lease.job_id).losses == 0
    kill_child(store, again)
    found = [(loss.job_id, loss.attempt, loss.worker) for loss in losses_of(store, lease.job_id)]
    assert found == [(lease.job_id, 1, "wrk_1"), (lease.job_id, 2, "wrk_2")]


def test_a_wait_for_the_store_is_no_loss(store: Store) -> None:
    lease = store.run()
    with store.database.write() as session:
        wait_for_storage(session, lease, message="no room", runtime_seconds=1)
    assert store.job(lease.job_id).status == "queued"
    assert losses_of(store, lease.job_id) == []


def test_a_lease_that_ended_and_the_loss_that_fails_a_job_count(store: Store) -> None:
    lease = store.run(max_attempts=1)
    with store.database.write() as session:
        assert expire_leases(session, now=now(session), grace_seconds=-120) == 1
    assert [loss.attempt for loss in losses_of(store, lease.job_id)] == [1]


def test_a_drain_is_no_loss(store: Store) -> None:
    lease = store.run()
    with store.database.write() as session:
        release(session, lease, why="draining", reason=StatusReason.WORKER_DRAINING, runtime_seconds=1)
    assert losses_of(store, lease.job_id) == []


@pytest.mark.parametrize(
    ("whose", "hit", "seconds", "accounts"),
    [
        (MayLose.ANYBODY, True, 0.0, True),
        (MayLose.NOBODY, True, 60.0, False),
        (MayLose.ANYBODY_IF_LONG, True, LONG_SECONDS, True),
        (MayLose.ANYBODY_IF_LONG, True, LONG_SECONDS / 2, False),
        (MayLose.WHOM_IT_KILLED, frozenset({1, PID}), 0.0, True),
        (MayLose.WHOM_IT_KILLED, frozenset({1, PID + 1}), 0.0, False),
    ],
)
def test_a_fault_accounts_for_what_it_may_cost(
    cluster: Cluster, store: Store, whose: MayLose, hit: bool | frozenset[int], seconds: float, accounts: bool
) -> None:
    before = standing(cluster)
    lease = store.run()
    found = exposed(whose, hit, seconds, before, standing(cluster))
    kill_child(store, lease)
    complaints = list(causeless(losses_of(store, lease.job_id), [Exposed(), found]))
    assert (complaints == []) is accounts
    assert all(text.startswith("loss without cause: attempt 1 on wrk_1, the training process") for text in complaints)


def test_a_fault_accounts_for_attempts_under_way_while_it_lasted_alone(cluster: Cluster, store: Store) -> None:
    job_id = store.queue()
    leases = []
    befallen = []
    for _ in range(3):
        lease = store.claim()
        assert lease is not None
        leases.append(lease)
        now_standing = standing(cluster)
        befallen.append(exposed(MayLose.ANYBODY, True, 0.0, now_standing, standing(cluster)))
        if len(leases) < 3:
            kill_child(store, lease)
    between = exposed(MayLose.ANYBODY, True, 0.0, standing(cluster), standing(cluster))
    assert [each.attempts for each in befallen] == [((job_id, 1),), ((job_id, 2),), ((job_id, 3),)]
    assert between.attempts == ((job_id, 3),)
    [complaint] = causeless(losses_of(store, job_id), [befallen[1]])
    assert complaint.startswith("loss without cause: attempt 1 ")
    kill_child(store, leases[2])
    assert exposed(MayLose.ANYBODY, True, 0.0, standing(cluster), standing(cluster)).attempts == ()
