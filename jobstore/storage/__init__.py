"""Where the bytes of datasets, checkpoints, states and evaluations are kept: a folder, or a bucket."""

from jobstore.storage.folder import ArtifactFolder
from jobstore.storage.interface import (
    ArtifactStore,
    Beat,
    BlobMissing,
    BlobReader,
    BlobWriter,
    StorageFailed,
    StoredBlob,
)
from jobstore.storage.opening import open_artifacts

__all__ = [
    "ArtifactFolder",
    "ArtifactStore",
    "Beat",
    "BlobMissing",
    "BlobReader",
    "BlobWriter",
    "StorageFailed",
    "StoredBlob",
    "open_artifacts",
]
