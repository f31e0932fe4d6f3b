"""What must hold when all is over, read from the database and the disk themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import select, update

from jobstore.artifacts import PENDING, PUBLISHED
from jobstore.database import now
from jobstore.events import EventType, events_after
from jobstore.lifecycle import FINAL_STATUSES, JobStatus
from jobstore.metrics import read_series
from jobstore.scratch import own_scratch
from jobstore.storage.folder import MARK
from jobstore.tables import Artifact, Event, Job, Leader
from jobstore.upkeep import Upkeep
from jobstore.wakeups import Bell
from tests.chaos.cluster import Cluster
from tests.chaos.load import Posted
from tests.chaos.record import ALL, Record, record_of, unlike

# From PALS's description of the states: from where a job may go whither.
MOVES = {
    None: {"queued"},
    "queued": {"running", "cancelled", "paused", "failed"},
    "running": {"succeeded", "failed", "pausing", "cancelling", "queued"},
    "pausing": {"paused", "cancelling", "succeeded", "failed"},
    "cancelling": {"cancelled", "succeeded", "failed"},
    "paused": {"queued", "cancelled"},
}


def wrong_with(cluster: Cluster, posted: Posted, reference: Record) -> Iterator[str]:
    """Say what is wrong with a job that should have ended; `reference` is the record of an undisturbed training."""
    with cluster.database.read() as session:
        job = session.get(Job, posted.id)
        if job is None:
            yield "lost"
            return
        events = list(events_after(session, job.id, 0, ALL))
        series = {one.name: one.steps for one in read_series(session, job.id, names=None, max_points=ALL)}
    if job.status not in FINAL_STATUSES:
        yield f"stuck: {job.status}"
        return
    if job.status not in posted.right_ends:
        yield f"ended as {job.status}: {job.error}"
        return
    yield from _wrong_in_log(job, events)
    steps = series.get("train_loss", [])
    if steps != list(range(1, len(steps) + 1)):
        yield "points of its loss are missing or doubled"
    if job.status == JobStatus.SUCCEEDED:
        if job.progress is None or job.progress["step"] != len(steps):
            yield f"{len(steps)} points of its loss, of {job.progress}"
        if job.reproducible is not True:
            yield "not reproducible"
        yield from unlike(record_of(cluster, job.id), reference)


def _wrong_in_log(job: Job, events: list[Event]) -> Iterator[str]:
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        yield "events are missing or doubled"
    if job.event_seq != len(events):
        yield f"{len(events)} events, and the counter says {job.event_seq}"
    before: str | None = None
    attempts = 0
    for event in events:
        if event.type != EventType.STATE:
            continue
        to = event.data["status"]
        if event.data["from"] != before or to not in MOVES.get(before, set()):
            yield f"moved from {event.data['from']} to {to} when it was {before}"
        before = to
        attempts += to == "running"
    if before != job.status:
        yield f"the log ends with {before}, the job is {job.status}"
    if attempts != job.attempt:
        yield f"claimed {attempts} times in {job.attempt} attempts"


def wrong_with_store(cluster: Cluster) -> Iterator[str]:
    """Say which bytes nobody needs, or are not what their row says, once what was abandoned has been swept.

    The service has stopped; a day passes for what it left behind.
    """
    bell = Bell(cluster.settings)
    upkeep = Upkeep(cluster.database, cluster.artifacts, bell, cluster.settings)
    with cluster.database.write() as session:
        day_ago = now(session) - timedelta(days=2)
        session.execute(update(Artifact).where(Artifact.status == PENDING).values(created_at=day_ago))
        session.execute(update(Leader).values(expires_at=day_ago))
    left = 1
    while left:
        upkeep.once()
        with cluster.database.read() as session:
            left = len(session.scalars(select(Artifact.id).where(Artifact.status != PUBLISHED)).all())
    bell.close()
    with cluster.database.read() as session:
        kept = {artifact.key: artifact for artifact in session.scalars(select(Artifact))}
    root = cluster.artifacts.root
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} - {MARK}
    yield from (f"file {key} belongs to nobody" for key in sorted(files - kept.keys()))
    for key, artifact in kept.items():
        if key not in files or hashlib.sha256((root / key).read_bytes()).hexdigest() != artifact.sha256:
            yield f"the bytes of {key} are not those that were stored"
    with own_scratch(cluster.settings.scratch_dir, "wrk_after_all") as mine:
        left_behind = {path.name for path in mine.parent.iterdir() if path.is_dir()} - {mine.name}
    yield from (f"a dead worker's folder {name} was not removed" for name in sorted(left_behind))
