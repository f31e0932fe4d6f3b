"""An S3-compatible server to test against: moto's, in a process of its own, which forgets everything at its end."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from urllib.error import URLError
from uuid import uuid4

from tests.servers.throwaway import Account, new_folder, on_a_free_port, running

SECRET = "a-secret-that-must-not-show"


@dataclass(frozen=True)
class S3Server:
    """Where it listens."""

    endpoint: str

    def environment(self, bucket: str) -> Mapping[str, str]:
        """What a process needs that keeps its artifacts in this bucket."""
        return {
            "PALS_ARTIFACTS_URL": f"s3://{bucket}/artifacts",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "pals-tests",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def new_bucket(self) -> str:
        name = f"pals-{uuid4().hex}"
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        with closing(urllib.request.urlopen(request)):
            return name


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """Start a throw-away server on loopback."""
    with on_a_free_port(_started_on) as server:
        yield server


@contextmanager
def _started_on(port: int) -> Iterator[S3Server]:
    myself = Account(None, None)
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running([command], new_folder(myself), myself, lambda: _answers(endpoint)):
        yield S3Server(endpoint)


def _answers(endpoint: str) -> bool:
    try:
        with closing(urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=5)):
            return True
    except (URLError, OSError):
        return False
