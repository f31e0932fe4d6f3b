"""What a training saves, on its way between the training's folder and the artifact store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy.orm import Session

from jobstore.artifacts import new_artifact
from jobstore.checkpoints import NewCheckpoint, NewEvaluation
from jobstore.states import NewState, SavedState
from jobstore.storage import ArtifactStore, Beat, BlobMissing, StoredBlob
from jobstore.tables import Job
from pals_core.checkpoint.container import read_header
from pals_core.checkpoint.header import NetworkCost
from pals_core.training.events import CheckpointSaved, StateSaved

NewArtifact = Callable[[str], tuple[str, str]]
Discard = Callable[[SavedState, str], None]


class Interrupted(Exception):
    """Raised by a beat once the attempt is over: the bytes on their way are given up."""


def new_artifact_of(session: Session, job_id: str, kind: str) -> tuple[str, str]:
    """The id and the key of a pending artifact for bytes of a job."""
    artifact = new_artifact(session, session.get_one(Job, job_id).tenant_id, kind)
    return artifact.id, artifact.key


def keep_checkpoint(saved: CheckpointSaved, artifacts: ArtifactStore, new: NewArtifact, beat: Beat) -> NewCheckpoint:
    """Store a checkpoint, with its evaluation, and remove the files. Raises StorageFailed, InvalidCheckpoint.

    Here as below, `beat` is called between pieces: a slow store must not cost the lease, nor keep anybody waiting who
    wants the training to stop.
    """
    path = Path(saved.path)
    cost = read_header(path).model_dump(mode="json", include=set(NetworkCost.model_fields))
    artifact_id, blob = _keep(path, artifacts, new, beat, "checkpoints")
    evaluation = None
    if saved.evaluation_path is not None:
        evaluation = NewEvaluation(*_keep(Path(saved.evaluation_path), artifacts, new, beat, "evaluations"))
    return NewCheckpoint(
        artifact_id=artifact_id,
        blob=blob,
        step=saved.step,
        epoch=saved.epoch,
        is_best=saved.is_best,
        is_last=saved.is_last,
        sparsity=saved.sparsity,
        validation_loss=saved.validation_loss,
        metrics=saved.result.metrics.model_dump(mode="json") if saved.result else None,
        cost=cost,
        evaluation=evaluation,
    )


def keep_state(saved: StateSaved, artifacts: ArtifactStore, new: NewArtifact, beat: Beat) -> NewState:
    """Store a state's bytes and remove the file, which goes also when they cannot be stored. Raises StorageFailed."""
    artifact_id, blob = _keep(Path(saved.path), artifacts, new, beat, "states")
    return NewState(artifact_id, blob, saved.step)


def fetch_newest_state(
    states: Sequence[SavedState], artifacts: ArtifactStore, folder: Path, beat: Beat, discard: Discard
) -> tuple[SavedState, Path] | tuple[None, None]:
    """The newest state that is whole and its file in a training's folder; newer ones are discarded.

    Raises StorageFailed.
    """
    for state in states:
        fetched = _fetch_state(state, artifacts, folder, beat)
        if isinstance(fetched, Path):
            return state, fetched
        discard(state, fetched)
    return None, None


def _fetch_state(state: SavedState, artifacts: ArtifactStore, folder: Path, beat: Beat) -> Path | str:
    """The file, or why the state cannot be used."""
    path = folder / f"state-{state.step:09}.safetensors"
    try:
        if artifacts.fetch(state.key, path, beat=beat).sha256 == state.sha256:
            return path
    except BlobMissing:
        return "its bytes are gone"
    path.unlink()
    return "its bytes are not those that were saved"


def _keep(path: Path, artifacts: ArtifactStore, new: NewArtifact, beat: Beat, kind: str) -> tuple[str, StoredBlob]:
    artifact_id, key = new(kind)
    try:
        return artifact_id, artifacts.put(key, path, beat=beat)
    finally:
        # Kept for a store that is away, a long training's states would fill the disk; the row is left to the sweep.
        path.unlink()
