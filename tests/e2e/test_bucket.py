"""The main job with its artifacts in a bucket."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from pals_client import Client
from tests.e2e.stacks import Service, embedded
from tests.e2e.test_main_job import EXAMPLE, SMALL
from tests.jobstore.storage.conftest import InsideBucket
from tests.servers.s3 import SECRET, S3Server


@pytest.fixture
def bucket(s3_server: S3Server, tmp_path: Path) -> Iterator[InsideBucket]:
    inside = InsideBucket(s3_server, tmp_path / "looking")
    yield inside
    inside.store.close()


def test_whole_downloads_lead_to_the_bucket_when_the_settings_say_so(
    s3_server: S3Server, bucket: InsideBucket, tmp_path: Path
) -> None:
    with embedded(tmp_path, {**bucket.environment, "PALS_DOWNLOAD_REDIRECTS": "true"}) as service:
        http = service.http
        dataset = service.upload("weekly CO₂", EXAMPLE.read_bytes())
        content = f"/v1/datasets/{dataset['id']}/content"
        sent_on = http.get(content)
        address = sent_on.headers["location"]
        assert (sent_on.status_code, sent_on.content) == (307, b"")
        assert address.startswith(f"{s3_server.endpoint}/{bucket.bucket}/artifacts/")
        assert "X-Amz-Expires=60&" in address
        assert SECRET not in address
        there = httpx.get(address)
        assert there.content == EXAMPLE.read_bytes()
        assert there.headers["content-type"] == "text/csv"
        here = http.head(content)
        assert (here.status_code, here.headers["content-length"]) == (200, str(len(there.content)))
        assert there.headers["content-disposition"] == here.headers["content-disposition"]
        part = http.get(content, headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, there.content[5:10])
        assert http.get(content, headers={"If-None-Match": here.headers["etag"]}).status_code == 304

        posted = http.post("/v1/jobs", json={"dataset_id": dataset["id"], "spec": SMALL})
        job = service.wait(posted.json()["id"], "succeeded")
        with Client(str(http.base_url)) as client:
            best = next(checkpoint for checkpoint in client.checkpoints(job["id"]) if checkpoint["is_best"])
            client.download(best["id"], tmp_path / "packed.safetensors")
            client.download(best["id"], tmp_path / "int8.safetensors", precision="int8")
        assert hashlib.sha256((tmp_path / "packed.safetensors").read_bytes()).hexdigest() == best["sha256"]
        assert (tmp_path / "int8.safetensors").stat().st_size < best["bytes"]


def trainings_and_offload(service: Service) -> list[psutil.Process]:
    """The processes that see data of users."""
    [serve] = service.processes.values()
    heavy = ("worker.train", "api.offload_child")
    return [child for child in psutil.Process(serve.pid).children(recursive=True) if set(heavy) & {*child.cmdline()}]


def test_a_job_goes_its_way_through_a_bucket(bucket: InsideBucket, tmp_path: Path) -> None:
    with embedded(tmp_path, {**bucket.environment, "PALS_STATE_INTERVAL_SECONDS": "0.1"}) as service:
        http = service.http
        dataset = service.upload("co2", EXAMPLE.read_bytes())
        assert dataset["status"] == "ready"
        assert http.get(f"/v1/datasets/{dataset['id']}/content").content == EXAMPLE.read_bytes()

        spec = SMALL | {"training": {"epochs": 200, "patience": 200}}
        stopped = http.post("/v1/jobs", json={"dataset_id": dataset["id"], "spec": spec}).json()["id"]
        service.wait(stopped, "running")
        while "/states/" not in " ".join(bucket.keys()):
            time.sleep(0.1)
        http.post(f"/v1/jobs/{stopped}/pause")
        service.wait(stopped, "paused")
        http.post(f"/v1/jobs/{stopped}/resume")
        while http.get(f"/v1/jobs/{stopped}").json()["resumed_from"] is None:
            time.sleep(0.1)
        http.post(f"/v1/jobs/{stopped}/cancel")
        service.wait(stopped, "cancelled")

        posted = http.post("/v1/jobs", json={"dataset_id": dataset["id"], "spec": SMALL})
        job = service.wait(posted.json()["id"], "succeeded")
        checkpoints = http.get(f"/v1/jobs/{job['id']}/checkpoints").json()["data"]
        best: dict[str, Any] = next(checkpoint for checkpoint in checkpoints if checkpoint["is_best"])
        content = f"/v1/checkpoints/{best['id']}/content"
        whole = http.get(content)
        assert hashlib.sha256(whole.content).hexdigest() == best["sha256"]
        rest = http.get(content, headers={"Range": "bytes=100-", "If-Range": whole.headers["etag"]})
        assert (rest.status_code, rest.content) == (206, whole.content[100:])
        assert http.head(content).headers["content-length"] == str(len(whole.content))
        assert http.get(f"/v1/jobs/{job['id']}/evaluation").json()["forecaster"]

        first = http.post(f"/v1/checkpoints/{best['id']}/forecasts", timeout=90).json()
        again = http.post(f"/v1/checkpoints/{best['id']}/forecasts", json={"dataset_id": dataset["id"]}).json()
        assert first["timestamps"] == again["timestamps"]
        assert first["values"] == again["values"]

        children = trainings_and_offload(service)
        assert {*(child.cmdline()[-1] for child in children)}
        for child in children:
            assert not any(name.startswith("AWS_") for name in child.environ())
        told = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert any(path.name == "pals.db" for path in told)
        assert [path for path in told if SECRET.encode() in path.read_bytes()] == []
        assert not (tmp_path / "data" / "artifacts").exists()

        for job_id in (stopped, job["id"]):
            assert http.delete(f"/v1/jobs/{job_id}").status_code == 204
        assert http.delete(f"/v1/datasets/{dataset['id']}").status_code == 204
        while bucket.keys() or bucket.torn():
            time.sleep(0.1)
    scratch = tmp_path / "data" / "scratch"
    assert [path for path in scratch.rglob("*") if path.name != ".lock"] == []
