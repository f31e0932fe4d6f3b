"""The client against the real API, with the test in the worker's place."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from jobstore.lifecycle import JobStatus
from jobstore.metrics import Point
from pals_client import ApiError, Client, DatasetInvalid, Event
from pals_core import train
from tests.client.conftest import HASTY, Service, daily_csv

SPEC: dict[str, Any] = {"data": {"horizon": 7, "input_len": 14}, "model": "dlinear", "training": {"device": "cpu"}}


def queued(client: Client, csv: bytes, **options: Any) -> str:
    dataset = client.upload_dataset(csv, name="load")
    return client.create_job(dataset["id"], SPEC, **options)["id"]


# --- datasets ---------------------------------------------------------------------------------------


def test_a_file_is_uploaded_under_its_name_and_comes_back_audited(client: Client, csv_file: Path) -> None:
    dataset = client.upload_dataset(csv_file)

    assert (dataset["name"], dataset["status"]) == ("load.csv", "ready")
    assert dataset["sha256"] == hashlib.sha256(csv_file.read_bytes()).hexdigest()
    assert dataset["profile"] is not None
    assert dataset["profile"]["columns"] == ["load", "price"]
    assert client.dataset(dataset["id"]) == dataset
    assert next(client.datasets())["id"] == dataset["id"]


def test_bytes_are_uploaded_gzipped_or_not(client: Client, csv: bytes) -> None:
    plain, zipped = client.upload_dataset(csv), client.upload_dataset(gzip.compress(csv), name="load.csv.gz")

    assert plain["profile"] == zipped["profile"]


def test_a_file_that_is_no_table_is_refused(client: Client) -> None:
    with pytest.raises((ApiError, DatasetInvalid), match="column"):
        client.upload_dataset(b"a,b\n1,2\n3,4\n")


def test_a_deleted_dataset_is_gone(client: Client, csv: bytes) -> None:
    dataset = client.upload_dataset(csv)
    client.delete_dataset(dataset["id"])

    with pytest.raises(ApiError, match="404 not_found"):
        client.dataset(dataset["id"])


# --- jobs -------------------------------------------------------------------------------------------


def test_a_job_is_planned_without_being_queued(client: Client, csv: bytes) -> None:
    dataset = client.upload_dataset(csv)
    plan = client.plan_job(dataset["id"], SPEC)

    assert plan["valid"]
    assert plan["spec"]["data"]["targets"] == ["load", "price"]
    assert plan["estimate"]["total_steps"] > 0
    assert [*client.jobs(dataset_id=dataset["id"])] == []


def test_a_job_is_queued_with_everything_it_was_given(client: Client, csv: bytes) -> None:
    dataset = client.upload_dataset(csv)
    job = client.create_job(
        dataset["id"],
        SPEC,
        name="a week",
        limits={"max_attempts": 1},
        priority=5,
        metadata={"team": "demand"},
    )

    assert (job["status"], job["name"], job["priority"], job["metadata"]) == ("queued", "a week", 5, {"team": "demand"})
    assert client.job(job["id"])["spec"]["data"]["horizon"] == 7
    assert client.cancel(job["id"])["status"] == "cancelled"
    assert client.cancel(job["id"])["status"] == "cancelled"


def test_a_job_is_paused_resumed_and_retried(client: Client, csv: bytes) -> None:
    job_id = queued(client, csv)

    assert client.pause(job_id)["status"] == "paused"
    assert client.resume(job_id)["status"] == "queued"
    with pytest.raises(ApiError, match="409 job_state_conflict"):
        client.retry(job_id)
    client.cancel(job_id)
    again = client.retry(job_id)
    assert (again["status"], again["retry_of"], again["resumed_from"]) == ("queued", job_id, None)
    assert client.retry(job_id)["id"] == again["id"]
    client.cancel(again["id"])


def test_a_spec_that_does_not_fit_is_refused_with_the_place(client: Client, csv: bytes) -> None:
    dataset = client.upload_dataset(csv)
    with pytest.raises(ApiError) as refusal:
        client.create_job(dataset["id"], {**SPEC, "data": {"horizon": 7000}})

    assert (refusal.value.status, refusal.value.code) == (422, "invalid_spec")
    assert [error["pointer"] for error in refusal.value.errors] == ["/spec/data/horizon"]


def test_lists_run_over_all_pages(client: Client, csv: bytes) -> None:
    dataset = client.upload_dataset(csv)
    made = [client.create_job(dataset["id"], SPEC)["id"] for _ in range(25)]

    assert sorted(job["id"] for job in client.jobs(dataset_id=dataset["id"])) == sorted(made)
    for job_id in made:
        client.cancel(job_id)
    assert [*client.jobs(dataset_id=dataset["id"], status="queued")] == []


def test_a_deleted_job_is_gone(client: Client, csv: bytes) -> None:
    job_id = queued(client, csv)
    with pytest.raises(ApiError, match="409 job_not_final"):
        client.delete_job(job_id)
    client.cancel(job_id)
    client.delete_job(job_id)

    with pytest.raises(ApiError, match="404"):
        client.job(job_id)


# --- watching ---------------------------------------------------------------------------------------


def test_waiting_hears_every_event_as_it_happens_and_returns_the_ended_job(
    api: Service, client: Client, csv: bytes
) -> None:
    job_id = queued(client, csv)
    heard: list[Event] = []
    running = threading.Event()
    ended: list[str] = []

    def listen(event: Event) -> None:
        heard.append(event)
        if event["message"] == "step 1":
            running.set()

    def wait() -> None:
        ended.append(client.wait(job_id, on_event=listen)["status"])

    watcher = threading.Thread(target=wait)
    watcher.start()
    lease = api.claim()
    api.report(lease, 1, "step 1")
    # Nothing more is written until the watcher has heard of the first step.
    assert running.wait(30)
    api.report(lease, 2, "step 2", "step 3")
    api.end(lease)
    watcher.join()

    assert ended == ["succeeded"]
    assert [event["id"] for event in heard] == [1, 2, 3, 4, 5, 6]
    assert [event["message"] for event in heard][2:] == ["step 1", "step 2", "step 3", "succeeded"]


def test_a_watcher_outlives_a_restart_of_the_service_and_misses_nothing(service: Service, csv: bytes) -> None:
    with service.listening(), Client(service.url, retries=HASTY) as client:
        job_id = queued(client, csv)
    patient = HASTY.__class__(attempts=1000, first_pause_seconds=0.01, longest_pause_seconds=0.05)
    heard: list[int] = []
    seen_before = threading.Event()

    def watch() -> None:
        with Client(service.url, retries=patient) as client:
            for event in client.events(job_id):
                heard.append(event["id"])
                if event["id"] == 3:
                    seen_before.set()

    watcher = threading.Thread(target=watch)
    with service.listening():
        watcher.start()
        lease = service.claim()
        service.report(lease, 1, "before the restart")
        assert seen_before.wait(30)
    service.report(lease, 2, "while it is down")
    with service.listening():
        service.report(lease, 3, "after the restart")
        service.end(lease)
        watcher.join()

    assert heard == [1, 2, 3, 4, 5, 6]


def test_metrics_come_by_name_and_thinned(api: Service, client: Client, csv: bytes) -> None:
    job_id = queued(client, csv)
    lease = api.claim()
    api.report(lease, 1, points=tuple(Point("train_loss", step, 1 / step) for step in range(1, 101)))
    api.report(lease, 2, points=(Point("sparsity", 0, 0.0), Point("sparsity", 100, 0.5)))
    api.end(lease)

    series = client.metrics(job_id)
    assert {*series} == {"train_loss", "sparsity"}
    assert series["sparsity"] == {"steps": [0, 100], "values": [0.0, 0.5]}
    thinned = client.metrics(job_id, names=["train_loss"], max_points=10)
    assert {*thinned} == {"train_loss"}
    assert len(thinned["train_loss"]["steps"]) == 10
    assert thinned["train_loss"]["steps"][-1] == 100


# --- checkpoints ------------------------------------------------------------------------------------


def test_the_layers_of_the_best_checkpoint_come_with_what_they_cost(api: Service, client: Client, csv: bytes) -> None:
    job_id = queued(client, csv)
    lease = api.claim()
    api.save(lease, 1, b"a checkpoint")
    api.end(lease)
    layers = client.layers(job_id)

    layer = {"weights": 98, "active": 49, "sparsity": 0.5, "flops_dense": 392, "flops_sparse": 196, "bytes": 209}
    assert layers["data"] == [{"name": "trend.weight", "shape": [7, 14], "dtype": "float32", **layer}]
    assert layers["products"] == [{"module": "attention", "kind": "matrix", "flops": 8}]
    assert layers["total"] == layer | {"flops_dense": 400, "flops_sparse": 204}


def test_a_checkpoint_is_downloaded_as_it_was_saved(api: Service, client: Client, csv: bytes, tmp_path: Path) -> None:
    job_id = queued(client, csv)
    content = bytes(range(256)) * 10_000
    lease = api.claim()
    api.save(lease, 1, content)
    api.end(lease)

    [checkpoint] = client.checkpoints(job_id)
    assert (checkpoint["is_best"], checkpoint["bytes"]) == (True, len(content))
    path = tmp_path / "model.safetensors"
    (tmp_path / f".{path.name}.{checkpoint['sha256'][:16]}.part").write_bytes(content[:1_000_000])
    assert client.download(checkpoint["id"], path)["sha256"] == hashlib.sha256(content).hexdigest()
    assert path.read_bytes() == content


def test_a_checkpoint_forecasts_in_the_units_of_the_data(
    api: Service, client: Client, csv_file: Path, tmp_path: Path
) -> None:
    job_id = queued(client, csv_file.read_bytes())
    lease = api.claim()
    trained = train({**SPEC, "training": {"device": "cpu", "epochs": 1}}, csv_file, tmp_path / "training")
    api.save(lease, 1, trained.path.read_bytes(), trained.evaluation.model_dump_json().encode())
    api.end(lease)
    [checkpoint] = client.checkpoints(job_id)
    assert client.evaluation(job_id) == trained.evaluation.model_dump(mode="json")

    after_training = client.forecast(checkpoint["id"])
    assert after_training["columns"] == ["load", "price"]
    assert [len(values) for values in after_training["values"].values()] == [7, 7]
    assert after_training["timestamps"][0].startswith("2020-07-19")
    farther = client.forecast(checkpoint["id"], horizon=10, levels=[60])
    assert farther["values"]["load"][:7] == pytest.approx(after_training["values"]["load"])
    assert [(interval["level"], len(interval["lower"]["load"])) for interval in farther["intervals"]] == [(60, 10)]
    again = client.forecast(checkpoint["id"], dataset_id=client.job(job_id)["dataset_id"])
    assert again["values"] == after_training["values"]

    with pytest.raises(ApiError) as refused:
        client.forecast(checkpoint["id"], future={"timestamps": ["2020-07-19"], "values": {"sun": [1.0]}})
    assert "no known-future columns" in str(refused.value)
    with pytest.raises(ApiError) as refused:
        client.forecast(checkpoint["id"], series=["load"])
    assert "pooled" in str(refused.value)

    longer = daily_csv(230).decode().splitlines()[-20:]
    rows = [line.split(",") for line in longer]
    given = client.forecast(
        checkpoint["id"],
        timestamps=[row[0] for row in rows],
        values={"load": [float(row[1]) for row in rows], "price": [float(row[2]) for row in rows]},
    )
    assert given["timestamps"][0].startswith("2020-08-18")
    with pytest.raises(ApiError, match="422 invalid_forecast_input"):
        client.forecast(checkpoint["id"], timestamps=["2020-01-01"], values={"load": [1.0], "price": [1.0]})


def test_a_cancelled_job_keeps_its_checkpoint(api: Service, client: Client, csv: bytes, tmp_path: Path) -> None:
    job_id = queued(client, csv)
    lease = api.claim()
    api.save(lease, 1, b"weights")
    assert client.cancel(job_id)["status"] == "cancelling"
    api.end(lease, JobStatus.CANCELLED)

    [checkpoint] = client.checkpoints(job_id)
    client.download(checkpoint["id"], tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == b"weights"


# --- service ----------------------------------------------------------------------------------------


def test_a_service_without_a_worker_is_not_ready_and_one_that_is_down_neither(api: Service, client: Client) -> None:
    assert client.is_ready() is False
    with Client("http://127.0.0.1:1", retries=HASTY) as nobody:
        assert nobody.is_ready() is False


def test_the_client_imports_none_of_the_other_rooms() -> None:
    program = (
        "import sys, pals_client; "
        "print({name.split('.')[0] for name in sys.modules} & "
        "{'api', 'cli', 'jobstore', 'migrations', 'pals_core', 'worker', 'torch', 'pandas', 'sqlalchemy'})"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
