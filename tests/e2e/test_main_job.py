"""The main job on both stacks: upload, train, watch, download, forecast."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.stacks import Service

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "mauna_loa_co2.csv"
SMALL = {
    "data": {"horizon": 8, "input_len": 24, "missing": "interpolate"},
    "model": {"name": "nstransformer", "d_model": 16, "d_ff": 32, "heads": 2},
    "method": {"name": "pals", "update_interval": 5},
    "training": {"epochs": 2},
}
LOAD_AND_FORECAST = """
import json, sys
from pals_core import load_forecaster
forecast = load_forecaster(sys.argv[1]).forecast()
print(json.dumps({"timestamps": [str(t) for t in forecast.timestamps], "values": forecast.values.tolist()}))
"""


def test_a_series_becomes_a_sparse_forecaster(service: Service, tmp_path: Path) -> None:
    dataset = service.upload("co2", EXAMPLE.read_bytes())
    assert dataset["status"] == "ready"
    assert dataset["profile"]["frequency"] == "W-SAT"

    posted = service.http.post("/v1/jobs", json={"dataset_id": dataset["id"], "spec": SMALL, "metadata": {"a": "b"}})
    assert posted.status_code == 202, posted.text
    job_id = posted.json()["id"]
    assert posted.headers["location"].endswith(f"/v1/jobs/{job_id}")

    events = list(service.stream(job_id))
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "state"
    assert events[-1]["data"]["status"] == "succeeded", events[-1]
    assert any(event["type"] == "mask_update" for event in events)
    middle = len(events) // 2
    assert [event["id"] for event in service.stream(job_id, after=middle)] == list(range(middle + 1, len(events) + 1))

    job = service.http.get(f"/v1/jobs/{job_id}").json()
    assert job["result"]["sparsity"] > 0.2
    metrics = service.http.get(f"/v1/jobs/{job_id}/metrics", params={"names": "train_loss,sparsity"}).json()
    assert metrics

    checkpoints = service.http.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]
    best = next(checkpoint for checkpoint in checkpoints if checkpoint["is_best"])
    download = service.http.get(f"/v1/checkpoints/{best['id']}/content")
    assert download.status_code == 200
    assert hashlib.sha256(download.content).hexdigest() == best["sha256"] == download.headers["etag"].strip('"')
    half = len(download.content) // 2
    rest = service.http.get(
        f"/v1/checkpoints/{best['id']}/content",
        headers={"Range": f"bytes={half}-", "If-Range": download.headers["etag"]},
    )
    assert rest.status_code == 206
    assert rest.content == download.content[half:]

    path = tmp_path / "model.pals.safetensors"
    path.write_bytes(download.content)
    fresh = subprocess.run(
        [sys.executable, "-c", LOAD_AND_FORECAST, str(path)], capture_output=True, text=True, check=True, timeout=120
    )
    in_python = json.loads(fresh.stdout)
    over_http = service.http.post(f"/v1/checkpoints/{best['id']}/forecasts", json={}, timeout=90)
    assert over_http.status_code == 200, over_http.text
    forecast: dict[str, Any] = over_http.json()
    assert len(forecast["timestamps"]) == SMALL["data"]["horizon"]
    values = [[forecast["values"][column][step] for column in forecast["columns"]] for step in range(8)]
    assert values == in_python["values"]
    assert [t[:10] for t in forecast["timestamps"]] == [t[:10] for t in in_python["timestamps"]]


def test_a_running_job_is_cancelled(service: Service) -> None:
    dataset = service.upload("co2", EXAMPLE.read_bytes())
    spec = SMALL | {"training": {"epochs": 10_000, "patience": 10_000}}
    job_id = service.http.post("/v1/jobs", json={"dataset_id": dataset["id"], "spec": spec}).json()["id"]
    service.wait(job_id, "running")
    for event in service.stream(job_id):
        if event["type"] == "progress":
            break
    assert service.http.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    job = service.wait(job_id, "cancelled")
    assert job["status_reason"] == "cancelled"
    assert service.http.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    assert service.http.get(f"/v1/jobs/{job_id}").json()["finished_at"] == job["finished_at"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "invalid_table"),
        (b"\x00\x01\x02\x03" * 1000, "invalid_table"),
        (b"%PDF-1.7 not a table", "invalid_table"),
        (b"a,b\nx,y\nz,w\n", "invalid_table"),
    ],
)
def test_rubbish_is_refused_with_a_reason(service: Service, content: bytes, code: str) -> None:
    response = service.http.post(
        "/v1/datasets", params={"name": "rubbish"}, content=content, headers={"Content-Type": "text/csv"}
    )
    if response.status_code < 400:
        dataset = response.json()
        while dataset["status"] == "auditing":
            time.sleep(0.1)
            dataset = service.http.get(f"/v1/datasets/{dataset['id']}").json()
        assert dataset["status"] == "invalid"
        assert dataset["error"]["code"] == code
        job = service.http.post("/v1/jobs", json={"dataset_id": dataset["id"], "spec": SMALL})
        assert job.status_code == 422
    else:
        assert response.status_code in {400, 415, 422}
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"] == code


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"data": {"horizon": 5000, "missing": "interpolate"}}, "/spec/data/horizon"),
        ({"data": {"horizon": 8, "targets": ["nope"], "missing": "interpolate"}}, "/spec/data/targets/0"),
        ({"method": {"name": "pals", "min_sparsity": 0.9, "max_sparsity": 0.1}}, "/spec/method"),
        ({"model": {"name": "oracle"}}, "/spec/model"),
        ({"training": {"epochs": -1}}, "/spec/training/epochs"),
        ({"data": {"horizon": 8}}, "/spec/data/missing"),
    ],
)
def test_a_bad_spec_is_refused_before_it_is_queued(service: Service, change: dict[str, Any], pointer: str) -> None:
    dataset = service.upload("co2", EXAMPLE.read_bytes())
    before = service.http.get("/v1/jobs").json()["data"]
    response = service.http.post("/v1/jobs", json={"dataset_id": dataset["id"], "spec": SMALL | change})
    assert response.status_code == 422, response.text
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert pointer in [error["pointer"] for error in problem["errors"]]
    assert service.http.get("/v1/jobs").json()["data"] == before
