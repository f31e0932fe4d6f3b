"""A training that is paused, resumed, cancelled and retried on both stacks goes on each time."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e.stacks import embedded

if TYPE_CHECKING:
    from tests.e2e.stacks import Service

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "mauna_loa_co2.csv"
ENDLESS = {
    "data": {"horizon": 8, "input_len": 24, "missing": "interpolate"},
    "model": {"name": "dlinear"},
    "training": {"epochs": 10_000, "patience": 10_000},
}


def ask(service: Service, job_id: str, what: str) -> dict[str, Any]:
    answer = service.http.post(f"/v1/jobs/{job_id}/{what}")
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def wait_for_steps(service: Service, job_id: str, after: int) -> None:
    """Until an attempt is beyond this step."""
    for event in service.stream(job_id):
        if event["type"] == "progress" and event["data"]["step"] > after:
            return
    raise AssertionError(f"{job_id} ended")


def losses(service: Service, job_id: str) -> list[int]:
    query = {"names": "train_loss", "max_points": 10_000}
    series = service.http.get(f"/v1/jobs/{job_id}/metrics", params=query).json()["series"]
    steps: list[int] = series["train_loss"]["steps"]
    return steps


def test_a_training_goes_on_after_a_pause_and_as_a_retry(service: Service) -> None:
    dataset = service.upload("co2", EXAMPLE.read_bytes())
    posted = service.http.post("/v1/jobs", json={"dataset_id": dataset["id"], "spec": ENDLESS})
    job_id = posted.json()["id"]
    wait_for_steps(service, job_id, 0)
    ask(service, job_id, "pause")
    paused = service.wait(job_id, "paused")["progress"]["step"]
    ask(service, job_id, "pause")
    assert ask(service, job_id, "resume")["status"] == "queued"
    wait_for_steps(service, job_id, paused)
    job = service.http.get(f"/v1/jobs/{job_id}").json()
    assert (job["attempt"], job["resumed_from"]) == (2, {"job_id": job_id, "step": paused})
    assert job["reproducible"] is True

    ask(service, job_id, "cancel")
    service.wait(job_id, "cancelled")
    again = ask(service, job_id, "retry")
    assert (again["id"] != job_id, again["retry_of"]) == (True, job_id)
    assert ask(service, job_id, "retry")["id"] == again["id"]
    wait_for_steps(service, again["id"], paused)
    ask(service, again["id"], "cancel")
    job = service.wait(again["id"], "cancelled")
    assert job["resumed_from"]["job_id"] == job_id
    assert job["resumed_from"]["step"] >= paused
    steps = losses(service, again["id"])
    assert steps == list(range(1, len(steps) + 1))


def test_a_service_that_is_stopped_and_started_takes_its_training_up_again(tmp_path: Path) -> None:
    with embedded(tmp_path) as service:
        dataset = service.upload("co2", EXAMPLE.read_bytes())
        job_id = service.http.post("/v1/jobs", json={"dataset_id": dataset["id"], "spec": ENDLESS}).json()["id"]
        wait_for_steps(service, job_id, 0)
        service.processes["serve"].send_signal(signal.SIGTERM)
        assert service.processes["serve"].wait(20) in {0, -signal.SIGTERM}
    with embedded(tmp_path) as service:
        log = service.http.get(f"/v1/jobs/{job_id}/events", params={"limit": 1000}).json()["data"]
        drained = next(event for event in log if event["data"].get("reason") == "worker_draining")
        assert drained["data"]["status"] == "queued"
        stopped = int(drained["message"].rpartition(" ")[2])
        wait_for_steps(service, job_id, stopped)
        job = service.http.get(f"/v1/jobs/{job_id}").json()
        assert (job["attempt"], job["resumed_from"]) == (2, {"job_id": job_id, "step": stopped})
        ask(service, job_id, "cancel")
        service.wait(job_id, "cancelled")
