"""What a job's record tells of its training: an interrupted one must tell the same, each thing once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jobstore.checkpoints import checkpoints_of
from jobstore.events import EventType, events_after
from jobstore.metrics import read_series
from jobstore.tables import Artifact, Event
from tests.chaos.cluster import Cluster

ALL = 1_000_000


@dataclass(frozen=True)
class Record:
    """The digest of the best checkpoint, and by name, in order, what events and points say of the training.

    Times, attempts, progress and what is said of losses and resumptions are left out: those may differ, and so may
    which checkpoints are kept on the way.
    """

    best_sha256: str
    told: Sequence[tuple[str, Any]]


def record_of(cluster: Cluster, job_id: str) -> Record:
    """The record of a job that has succeeded; the digest is of the bytes in the store."""
    with cluster.database.read() as session:
        best = next(checkpoint for checkpoint in checkpoints_of(session, job_id) if checkpoint.is_best)
        key = session.get_one(Artifact, best.artifact_id).key
        told = [*_told(events_after(session, job_id, 0, ALL))]
        for series in read_series(session, job_id, names=None, max_points=ALL):
            points = zip(series.steps, series.values, strict=True)
            told += [(f"{series.name} of step {step}", value) for step, value in points]
    return Record(hashlib.sha256(cluster.artifacts.read(key)).hexdigest(), told)


def _told(events: Sequence[Event]) -> Iterator[tuple[str, Any]]:
    tested = None
    for event in events:
        data = {key: value for key, value in event.data.items() if key != "checkpoint_id"}
        told = (f"{event.type} of step {data.get('step')}", (event.level, event.message, data))
        if event.type in {EventType.MASK_UPDATE, EventType.EPOCH}:
            yield told
        # Whoever tests the best checkpoint again announces it again.
        elif event.type == EventType.CHECKPOINT and data["metrics"] is not None and told != tested:
            tested = told
            yield told


def unlike(record: Record, reference: Record) -> Iterator[str]:
    """Say what a record tells otherwise than that of an undisturbed training."""
    found, right = (Counter(name for name, _ in told) for told in (record.told, reference.told))
    more, contents = [*(found - right)], dict(reference.told)
    wrong = {
        "lost": [*(right - found)],
        "doubled": [name for name in more if name in right],
        "made up": [name for name in more if name not in right],
        "changed": [name for name, content in record.told if name in right and content != contents[name]],
    }
    if any(wrong.values()):
        kinds = (f"{len(names)} {how}: {', '.join(names[:3])}" for how, names in wrong.items() if names)
        yield f"of events and points {'; '.join(kinds)}"
    elif record.told != reference.told:
        yield "of events and points the order is another"
    if record.best_sha256 != reference.best_sha256:
        yield "another checkpoint than an undisturbed training's"
