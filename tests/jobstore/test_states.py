"""What is kept of a training so that it can go on."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from jobstore.database import now
from jobstore.events import EventType, NewEvent, told_after
from jobstore.leases import Beginning, LeaseLost, Report, discard_state, finish, lose, record
from jobstore.lifecycle import JobStatus
from jobstore.metrics import Point, read_series
from jobstore.states import NewState, drop_expired_states
from tests.jobstore.conftest import EMPTY

if TYPE_CHECKING:
    from jobstore.leases import Lease
    from tests.jobstore.conftest import Store


def again(store: Store, lease: Lease) -> Lease:
    """The lease of the attempt after one that was lost."""
    with store.database.write() as session:
        lose(session, lease, message="killed", runtime_seconds=1.0)
    after = store.claim()
    assert after is not None
    return after


def steps(store: Store, job_id: str) -> dict[str, list[int]]:
    with store.database.read() as session:
        return {one.name: [*one.steps] for one in read_series(session, job_id, names=None, max_points=1000)}


def test_a_new_job_has_none(store: Store) -> None:
    lease = store.run()

    assert lease.states == []
    assert store.job(lease.job_id).resumed_from is None


def test_the_newest_two_are_kept_and_go_to_the_next_attempt_newest_first(store: Store) -> None:
    lease = store.run()
    artifacts = [store.save_state(lease, number, step) for number, step in enumerate((3, 6, 9), start=1)]

    assert [store.artifact_status(artifact_id) for artifact_id in artifacts] == ["deleting", "published", "published"]
    states = again(store, lease).states
    assert [(state.step, state.sha256, state.saved_by) for state in states] == [
        (9, EMPTY.sha256, lease.job_id),
        (6, EMPTY.sha256, lease.job_id),
    ]
    assert states[0].key.endswith(f"/states/{artifacts[2]}")


def test_one_of_the_same_step_takes_its_place(store: Store) -> None:
    lease = store.run()
    artifacts = [store.save_state(lease, number, step) for number, step in enumerate((3, 6, 6), start=1)]

    assert store.steps_of_states(lease.job_id) == [6, 3]
    assert [store.artifact_status(artifact_id) for artifact_id in artifacts] == ["published", "deleting", "published"]


def test_a_state_is_written_together_with_what_was_heard_before_it(store: Store) -> None:
    lease = store.run()
    artifact_id = store.artifact("states")
    report = Report(
        1, [NewEvent(EventType.MESSAGE, "note")], [Point("a", 3, 1.0)], state=NewState(artifact_id, EMPTY, 3)
    )
    for _ in range(2):
        with store.database.write() as session:
            record(session, lease, report)

    assert store.steps_of_states(lease.job_id) == [3]
    assert [event.message for event in store.log(lease.job_id)][2:] == ["note"]
    assert steps(store, lease.job_id) == {"a": [3]}


def test_the_state_of_a_lost_lease_is_not_taken(store: Store) -> None:
    stale = store.run()
    store.save_state(stale, 1, 3)
    fresh = again(store, stale)
    artifact_id = store.artifact("states")

    with pytest.raises(LeaseLost), store.database.write() as session:
        record(session, stale, Report(2, state=NewState(artifact_id, EMPTY, 6)))

    assert store.artifact_status(artifact_id) == "pending"
    assert store.steps_of_states(fresh.job_id) == [3]


def test_losses_count_only_without_a_state_between_them(store: Store) -> None:
    lease = store.run(max_attempts=2)
    for number in range(1, 6):
        store.save_state(lease, 1, number)
        lease = again(store, lease)
        assert store.job(lease.job_id).losses == 1
    with store.database.write() as session:
        lose(session, lease, message="killed", runtime_seconds=1.0)

    assert store.job(lease.job_id).status == "failed"
    assert store.steps_of_states(lease.job_id) == [5, 4]


def test_steps_that_are_done_again_leave_one_point_each(store: Store) -> None:
    lease = store.run()
    store.save_state(lease, 1, 2, points=[Point("loss", step, 0.1) for step in (1, 2)])
    store.record(lease, 2, points=[Point("loss", step, 0.1) for step in (3, 4, 5)])
    after = again(store, lease)
    assert steps(store, lease.job_id) == {"loss": [1, 2, 3, 4, 5]}

    store.record(after, 1, points=[Point("loss", 3, 0.7)], beginning=Beginning(after.states[0], True))
    store.record(after, 2, points=[Point("loss", 4, 0.8)])
    with store.database.read() as session:
        [series] = read_series(session, lease.job_id, names=None, max_points=10)
    assert ([*series.steps], [*series.values]) == ([1, 2, 3, 4], [0.1, 0.1, 0.7, 0.8])
    job = store.job(lease.job_id)
    assert (job.resumed_from, job.reproducible) == ({"job_id": lease.job_id, "step": 2}, True)


def test_a_training_that_starts_over_leaves_no_point_of_the_one_before(store: Store) -> None:
    lease = store.run()
    store.record(lease, 1, points=[Point("sparsity", 0, 0.0), Point("sparsity", 1, 0.5)])
    after = again(store, lease)
    store.record(after, 1, points=[Point("sparsity", 0, 0.25)], beginning=Beginning(None, False))

    assert steps(store, lease.job_id) == {"sparsity": [0]}
    job = store.job(lease.job_id)
    assert (job.resumed_from, job.reproducible) == (None, False)


def test_a_state_that_is_of_no_use_is_given_up_and_the_log_says_so(store: Store) -> None:
    lease = store.run()
    first, second = store.save_state(lease, 1, 3), store.save_state(lease, 2, 6)
    with store.database.write() as session:
        discard_state(session, lease, 6, "its bytes are gone")

    assert store.steps_of_states(lease.job_id) == [3]
    assert (store.artifact_status(first), store.artifact_status(second)) == ("published", "deleting")
    event = store.log(lease.job_id)[-1]
    assert (event.level, event.message) == (
        "warning",
        "the state saved after step 6 cannot be used: its bytes are gone",
    )


@pytest.mark.parametrize(
    ("end", "kept"), [(JobStatus.SUCCEEDED, []), (JobStatus.FAILED, [6, 3]), (JobStatus.CANCELLED, [6, 3])]
)
def test_only_a_job_that_can_be_retried_keeps_its_states_and_not_for_ever(
    store: Store, end: JobStatus, kept: list[int]
) -> None:
    lease, running = store.run(), store.run()
    for number, step in ((1, 3), (2, 6)):
        store.save_state(lease, number, step)
        store.save_state(running, number, step)
    if end is JobStatus.CANCELLED:
        store.cancel(lease.job_id)
    with store.database.write() as session:
        finish(session, lease, end, message="ended", runtime_seconds=1.0)
    assert store.steps_of_states(lease.job_id) == kept

    for hours in (1, 3):
        with store.database.write() as session:
            drop_expired_states(session, now=now(session) + timedelta(hours=hours), hours=2)
        assert store.steps_of_states(lease.job_id) == (kept if hours == 1 else [])
    assert store.steps_of_states(running.job_id) == [6, 3]


def test_what_the_log_says_of_later_steps_is_known_by_type_and_step(store: Store) -> None:
    lease = store.run()
    store.record(
        lease,
        1,
        *(NewEvent(EventType.MASK_UPDATE, "update", {"step": step, "sparsity": step / 7}) for step in (2, 4, 6)),
        NewEvent(EventType.EPOCH, "epoch", {"step": 6, "train_loss": 1e-17}),
        NewEvent(EventType.PROGRESS, "progress", {"step": 7}),
    )
    with store.database.read() as session:
        assert told_after(session, lease.job_id, 2) == {
            ("mask_update", 4): {"step": 4, "sparsity": 4 / 7},
            ("mask_update", 6): {"step": 6, "sparsity": 6 / 7},
            ("epoch", 6): {"step": 6, "train_loss": 1e-17},
        }
