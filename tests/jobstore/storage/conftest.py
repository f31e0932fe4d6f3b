"""A store of each kind, and ways to look into it from behind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from s3fs import S3FileSystem

from jobstore.settings import Settings
from jobstore.storage import ArtifactFolder, ArtifactStore, open_artifacts
from jobstore.storage.folder import MARK
from tests.servers.s3 import S3Server

BYTES = bytes(range(256)) * 100_000  # 25 MB: many times the buffers on the way, several parts


class Inside(ABC):
    """What a store holds, seen by somebody who does not go through it."""

    store: ArtifactStore

    @abstractmethod
    def keys(self) -> list[str]:
        """Every blob that is visible."""

    @abstractmethod
    def torn(self) -> list[str]:
        """What is being written, or was left half-written."""


class InsideFolder(Inside):
    def __init__(self, root: Path) -> None:
        folder = open_artifacts(Settings(artifacts_url=root.as_uri()), new=True)
        assert isinstance(folder, ArtifactFolder)
        self.store: ArtifactFolder = folder

    def files(self) -> list[str]:
        root = self.store.root
        names = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        return sorted(name for name in names if name != MARK)

    def keys(self) -> list[str]:
        return [name for name in self.files() if not name.endswith(".part")]

    def torn(self) -> list[str]:
        return [name for name in self.files() if name.endswith(".part")]


class InsideBucket(Inside):
    def __init__(self, server: S3Server, scratch: Path) -> None:
        self.bucket = server.new_bucket()
        self.environment = server.environment(self.bucket)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            self.settings = Settings(data_dir=scratch)
            self.store = open_artifacts(self.settings)
            self.direct = S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
            self.direct.connect()

    def listed(self, method: str, of: str) -> list[dict[str, Any]]:
        answer: dict[str, Any] = self.direct.call_s3(method, Bucket=self.bucket)
        return answer.get(of, [])

    def keys(self) -> list[str]:
        names = [item["Key"].removeprefix("artifacts/") for item in self.listed("list_objects_v2", "Contents")]
        return [name for name in names if name != ".ready"]

    def torn(self) -> list[str]:
        return [item["Key"].removeprefix("artifacts/") for item in self.listed("list_multipart_uploads", "Uploads")]


@pytest.fixture
def folder(tmp_path: Path) -> InsideFolder:
    return InsideFolder(tmp_path / "artifacts")


@pytest.fixture
def bucket(s3_server: S3Server, tmp_path: Path) -> Iterator[InsideBucket]:
    inside = InsideBucket(s3_server, tmp_path)
    yield inside
    inside.store.close()


@pytest.fixture(params=["folder", "bucket"])
def inside(request: pytest.FixtureRequest) -> Inside:
    """The same promises for every kind of store."""
    kind: Inside = request.getfixturevalue(request.param)
    return kind
