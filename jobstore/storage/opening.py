"""Which store the settings name."""

from __future__ import annotations

from urllib.parse import urlsplit

from jobstore.settings import Settings
from jobstore.storage.folder import ArtifactFolder
from jobstore.storage.interface import ArtifactStore, checked


def open_artifacts(settings: Settings, *, new: bool = False) -> ArtifactStore:
    """The artifact store of these settings, not yet asked for anything. Raises ValueError for other addresses.

    `new` says that nothing is kept in it yet.
    """
    url = settings.resolved_artifacts_url
    parts = urlsplit(url)
    if parts.scheme == "file" or url.startswith("/"):
        return ArtifactFolder(url, new=new)
    if parts.scheme != "s3":
        raise ValueError(
            f"PALS_ARTIFACTS_URL must be a folder (file:///…) or a bucket (s3://bucket/prefix), not {parts.scheme}:"
        )
    bucket, prefix = parts.netloc, parts.path.strip("/")
    if not bucket or "@" in bucket or ":" in bucket or parts.query or parts.fragment:
        # Not repeated here: whoever wrote it like this may have put a secret into it.
        raise ValueError("PALS_ARTIFACTS_URL must be s3://bucket/prefix; credentials belong into AWS_… variables")
    try:
        from jobstore.storage.bucket import ArtifactBucket
    except ModuleNotFoundError as error:
        raise ValueError(f"PALS_ARTIFACTS_URL is a bucket, and {error.name} is missing: install pals[s3]") from error
    prefix = checked(prefix) if prefix else ""
    return ArtifactBucket(bucket, prefix, settings.scratch_dir, links=settings.download_redirects)
