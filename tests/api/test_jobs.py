from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from api.schemas.jobs import EXAMPLE_JOB
from jobstore.database import now
from jobstore.leases import Beginning, wait_for_storage
from jobstore.lifecycle import JobStatus
from jobstore.metrics import Point
from jobstore.tables import Job
from jobstore.workers import WorkerIdentity
from tests.api.conftest import SMALL, Problem, Server, csv_of, serving

FIELDS = {
    "id", "name", "status", "status_reason", "error", "spec", "dataset_id", "device_class", "created_at", "queued_at",
    "started_at", "finished_at", "attempt", "priority", "limits", "progress", "queue", "current", "result",
    "resumed_from", "retry_of", "reproducible", "metadata", "urls",
}  # fmt: skip


def test_a_posted_job_is_queued_with_every_default_filled_in(either: Server) -> None:
    server = either
    dataset = server.upload()
    response = server.http.post(
        "/v1/jobs",
        json={"dataset_id": dataset["id"], "name": "waves", "spec": {"data": {"horizon": 4}, "model": "dlinear"}},
    )
    assert response.status_code == 202
    job = response.json()
    assert set(job) == FIELDS
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["attempt"], job["priority"], job["name"]) == ("queued", 0, 0, "waves")
    assert job["spec"]["data"]["input_len"] == 96
    assert job["spec"]["data"]["targets"] == ["calm", "rising", "noise"]
    assert job["spec"]["model"] == {"name": "dlinear", "moving_avg": 25, "per_column": False}
    assert job["spec"]["method"]["name"] == "pals"
    assert job["limits"] == {
        "max_runtime_seconds": None,
        "max_pending_seconds": None,
        "max_memory_bytes": None,
        "max_attempts": 3,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", job["created_at"])
    shown = server.http.get(job["urls"]["stream"].removesuffix("/events/stream")).json()
    assert shown == job
    (event,) = server.http.get(job["urls"]["events"]).json()["data"]
    assert (event["id"], event["type"], event["data"]["status"]) == (1, "state", "queued")


def test_the_documented_example_is_accepted(server: Server, problem: Problem) -> None:
    dataset = server.upload(weekly_table())
    response = server.http.post("/v1/jobs", json=EXAMPLE_JOB | {"dataset_id": dataset["id"]})
    assert response.status_code == 202, response.text
    problem(server.http.post("/v1/jobs", json=EXAMPLE_JOB), 404, "not_found")


def weekly_table() -> bytes:
    first = date(2002, 1, 1)
    rows = (f"{first + timedelta(weeks=week)},{week % 52}\n" for week in range(966))
    return ("date,load\n" + "".join(rows)).encode()


def test_an_unknown_dataset_is_404_and_pointed_at(server: Server, problem: Problem) -> None:
    for dataset_id in ("ds_0199c2f4a1b20123456789abcdef", "weather"):
        response = server.http.post("/v1/jobs", json={"dataset_id": dataset_id, "spec": SMALL})
        assert problem(response, 404, "not_found")["errors"][0]["pointer"] == "/dataset_id"


def test_validate_only_estimates_and_queues_nothing(either: Server) -> None:
    server = either
    dataset = server.upload()
    before = server.http.get("/v1/jobs").json()
    response = server.http.post(
        "/v1/jobs", params={"validate_only": "true"}, json={"dataset_id": dataset["id"], "spec": SMALL}
    )
    assert response.status_code == 200
    assert "location" not in response.headers
    plan = response.json()
    assert plan["valid"] is True
    assert plan["spec"]["data"]["label_len"] == 6
    assert plan["estimate"]["total_steps"] == 3 * plan["estimate"]["steps_per_epoch"] > 0
    assert len(plan["estimate"]["reachable_sparsity"]) == 3
    assert server.http.get("/v1/jobs").json() == before


def test_findings_that_the_policy_does_not_cure_refuse_the_job(server: Server, problem: Problem) -> None:
    rows = server.table.splitlines(keepends=True)
    del rows[50]
    dataset = server.upload(b"".join(rows))
    response = server.http.post("/v1/jobs", json={"dataset_id": dataset["id"], "spec": SMALL})
    body = problem(response, 422, "invalid_spec")
    assert [error["pointer"] for error in body["errors"]] == ["/spec/data/missing"]
    cured: dict[str, Any] = SMALL | {"data": SMALL["data"] | {"missing": "interpolate"}}
    assert server.http.post("/v1/jobs", json={"dataset_id": dataset["id"], "spec": cured}).status_code == 202


def test_lists_filter_by_everything_and_go_page_by_page(either: Server) -> None:
    server = either
    dataset = server.upload()["id"]
    mine = [
        server.queue(dataset_id=dataset, metadata={"team's [key].$": 'déjà "vu"', "n": str(number)})["id"]
        for number in range(3)
    ]
    linear = server.queue(dataset_id=dataset, spec=SMALL | {"model": "dlinear", "method": "dense"})["id"]

    def listed(**query: Any) -> list[str]:
        page = server.http.get("/v1/jobs", params=query)
        assert page.status_code == 200, page.text
        return [job["id"] for job in page.json()["data"]]

    assert listed(dataset_id=dataset) == [linear, *mine[::-1]]
    assert listed(dataset_id=dataset, model="dlinear") == [linear]
    assert listed(dataset_id=dataset, method="dense") == [linear]
    assert listed(dataset_id=dataset, model="dlinear", method="pals") == []
    assert listed(**{"dataset_id": dataset, "metadata.team's [key].$": 'déjà "vu"'}) == mine[::-1]
    assert listed(**{"dataset_id": dataset, "metadata.n": "1"}) == [mine[1]]
    assert listed(**{"dataset_id": dataset, "metadata.n": "1", "metadata.other": "1"}) == []
    server.http.post(f"/v1/jobs/{mine[0]}/cancel")
    assert listed(dataset_id=dataset, status="cancelled") == [mine[0]]
    first = server.http.get("/v1/jobs", params={"dataset_id": dataset, "limit": 3}).json()
    assert first["has_more"] is True
    rest = server.http.get("/v1/jobs", params={"dataset_id": dataset, "limit": 3, "after": first["next"]}).json()
    assert [job["id"] for job in first["data"] + rest["data"]] == [linear, *mine[::-1]]
    assert (rest["has_more"], rest["next"]) == (False, None)


def test_a_queued_job_says_how_many_go_first_and_what_it_waits_for(tmp_path: Path, series: Any) -> None:
    with serving(tmp_path) as server:
        server.table = csv_of(series)
        dataset = server.upload()["id"]
        low, middle, high = (server.queue(dataset_id=dataset, priority=priority)["id"] for priority in (-5, 0, 5))

        def queue(job_id: str) -> dict[str, Any]:
            shown: dict[str, Any] = server.http.get(f"/v1/jobs/{job_id}").json()["queue"]
            return shown

        assert [queue(job_id)["jobs_ahead"] for job_id in (high, middle, low)] == [0, 1, 2]
        assert [job["queue"]["jobs_ahead"] for job in server.http.get("/v1/jobs").json()["data"]] == [0, 1, 2]
        assert "'cpu'" in queue(high)["waiting_for"]


def test_with_a_live_worker_a_job_waits_for_its_turn_alone(server: Server, live_worker: WorkerIdentity) -> None:
    job = server.queue()
    assert job["queue"]["waiting_for"] is None


def test_a_job_that_waits_for_the_store_says_until_when(server: Server, live_worker: WorkerIdentity) -> None:
    job_id = server.queue()["id"]
    lease = server.claim(job_id)
    with server.database.write() as session:
        wait_for_storage(session, lease, message="away", runtime_seconds=0.0)
    job = server.http.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["status_reason"]) == ("queued", "storage_unavailable")
    assert job["queue"]["estimated_wait_seconds"] is None
    assert re.fullmatch(r"the artifact store; the next try is at \S+ \S+ UTC", job["queue"]["waiting_for"])
    with server.database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(not_before=now(session)))
    assert server.http.get(f"/v1/jobs/{job_id}").json()["queue"]["waiting_for"] is None
    (worker,) = server.http.get("/v1/workers").json()["data"]
    (slot,) = worker["slots"]
    assert (worker["id"], slot["device_classes"], slot["job"]) == (live_worker.id, ["cpu", "auto"], None)


def test_a_running_job_shows_its_progress_and_metrics(either: Server) -> None:
    server = either
    job = server.queue()
    lease = server.claim(job["id"])
    progress = {"percentage": 50.0, "epoch": 1, "epochs": 3, "step": 7, "total_steps": 14,
                "estimated_remaining_seconds": 1.5, "updated_at": "2026-01-01T00:00:00Z"}  # fmt: skip
    current = {"train_loss": 0.5, "validation_loss": None, "sparsity": 0.25, "move": "shrink"}
    points = [Point("train_loss", step, 1 / step) for step in range(1, 501)]
    server.tell(lease, 1, progress=progress, current=current, points=[*points, Point("sparsity", 500, 0.25)])
    shown = server.http.get(f"/v1/jobs/{job['id']}").json()
    assert (shown["status"], shown["attempt"], shown["queue"]) == ("running", 1, None)
    assert shown["progress"] == progress
    assert shown["current"] == current
    url = f"/v1/jobs/{job['id']}/metrics"
    series = server.http.get(url).json()["series"]
    assert series["sparsity"] == {"steps": [500], "values": [0.25]}
    assert len(series["train_loss"]["steps"]) == 500
    thin = server.http.get(url, params={"names": "train_loss,nothing", "max_points": 10}).json()["series"]
    assert list(thin) == ["train_loss"]
    assert len(thin["train_loss"]["steps"]) <= 10
    assert thin["train_loss"]["steps"][-1] == 500
    assert thin["train_loss"]["values"][-1] == 1 / 500
    server.end(lease)


def test_cancelling_is_harmless_to_repeat(either: Server) -> None:
    server = either
    job = server.queue()
    url = f"/v1/jobs/{job['id']}"
    first = server.http.post(url + "/cancel")
    assert (first.status_code, first.json()["status"]) == (202, "cancelled")
    again = server.http.post(url + "/cancel")
    assert (again.status_code, again.json()) == (202, first.json())
    assert len(server.http.get(url + "/events").json()["data"]) == 2


def test_cancelling_a_running_job_asks_its_worker(server: Server) -> None:
    job = server.queue()
    lease = server.claim(job["id"])
    url = f"/v1/jobs/{job['id']}"
    assert server.http.post(url + "/cancel").json()["status"] == "cancelling"
    assert server.http.post(url + "/cancel").json()["status"] == "cancelling"
    server.end(lease, JobStatus.CANCELLED)
    assert server.http.get(url).json()["status"] == "cancelled"


def test_a_queued_job_is_paused_and_resumed_and_repeating_is_harmless(either: Server) -> None:
    server = either
    job = server.queue()
    url = f"/v1/jobs/{job['id']}"
    for _ in range(2):
        paused = server.http.post(url + "/pause")
        assert (paused.status_code, paused.json()["status"]) == (202, "paused")
    assert paused.json()["queue"] is None
    for _ in range(2):
        resumed = server.http.post(url + "/resume")
        assert (resumed.status_code, resumed.json()["status"]) == (202, "queued")
    statuses = [event["data"]["status"] for event in server.http.get(url + "/events").json()["data"]]
    assert statuses == ["queued", "paused", "queued"]
    server.http.post(url + "/pause")
    assert server.http.post(url + "/cancel").json()["status"] == "cancelled"


def test_a_running_job_is_paused_by_its_worker(server: Server, problem: Problem) -> None:
    job = server.queue()
    lease = server.claim(job["id"])
    url = f"/v1/jobs/{job['id']}"
    assert server.http.post(url + "/pause").json()["status"] == "pausing"
    assert server.http.post(url + "/pause").json()["status"] == "pausing"
    body = problem(server.http.post(url + "/resume"), 409, "job_state_conflict")
    assert body["detail"] == f"job {job['id']} is pausing: a job can be resumed once it is paused"
    server.release(lease)
    assert server.http.get(url).json()["status"] == "paused"
    resumed = server.http.post(url + "/resume").json()
    assert (resumed["status"], resumed["attempt"]) == ("queued", 1)


def test_what_a_jobs_state_does_not_permit_is_a_conflict(server: Server, problem: Problem) -> None:
    job = server.queue()
    url = f"/v1/jobs/{job['id']}"
    assert "is queued" in problem(server.http.post(url + "/retry"), 409, "job_state_conflict")["detail"]
    lease = server.claim(job["id"])
    server.end(lease)
    for what in ("pause", "resume", "retry"):
        assert "is succeeded" in problem(server.http.post(f"{url}/{what}"), 409, "job_state_conflict")["detail"]


def test_a_failed_job_is_retried_as_a_new_one_from_its_state(either: Server) -> None:
    server = either
    job = server.queue(name="waves", priority=3, metadata={"team": "demand"})
    lease = server.claim(job["id"])
    server.save_state(lease, 1, step=5, points=[Point("sparsity", step, 0.1) for step in range(8)])
    server.end(lease, JobStatus.FAILED)
    first = server.http.post(f"/v1/jobs/{job['id']}/retry")
    assert first.status_code == 202
    again = first.json()
    assert first.headers["location"] == f"/v1/jobs/{again['id']}"
    assert (again["status"], again["retry_of"], again["resumed_from"]) == ("queued", job["id"], None)
    fields = ("spec", "dataset_id", "limits", "priority", "name", "metadata")
    assert {name: again[name] for name in fields} == {name: job[name] for name in fields}
    assert server.http.post(f"/v1/jobs/{job['id']}/retry").json()["id"] == again["id"]
    assert server.http.get(again["urls"]["metrics"]).json()["series"]["sparsity"]["steps"] == [0, 1, 2, 3, 4, 5]

    lease = server.claim(again["id"])
    server.tell(lease, 1, beginning=Beginning(lease.states[0], True))
    shown = server.http.get(f"/v1/jobs/{again['id']}").json()
    assert shown["resumed_from"] == {"job_id": job["id"], "step": 5}
    assert shown["reproducible"] is True
    server.end(lease, JobStatus.FAILED)
    assert server.http.post(f"/v1/jobs/{job['id']}/retry").json()["id"] != again["id"]


def test_a_job_whose_dataset_is_gone_cannot_be_retried(server: Server, problem: Problem) -> None:
    job = server.queue()
    server.http.post(f"/v1/jobs/{job['id']}/cancel")
    assert server.http.delete(f"/v1/datasets/{job['dataset_id']}").status_code == 204
    body = problem(server.http.post(f"/v1/jobs/{job['id']}/retry"), 409, "dataset_deleted")
    assert job["dataset_id"] in body["detail"]


def test_only_a_job_that_has_ended_can_be_deleted(either: Server, best_checkpoint: Path, problem: Problem) -> None:
    server = either
    job = server.queue()
    url = f"/v1/jobs/{job['id']}"
    problem(server.http.delete(url), 409, "job_not_final")
    lease = server.claim(job["id"])
    problem(server.http.delete(url), 409, "job_not_final")
    checkpoint_id = server.checkpoint(lease, 1, best_checkpoint)
    listed = server.http.get(url + "/checkpoints").json()["data"]
    assert [(one["id"], one["is_best"], one["step"]) for one in listed] == [(checkpoint_id, True, 10)]
    server.end(lease)
    with ThreadPoolExecutor(4) as threads:
        answers = sorted(answer.status_code for answer in threads.map(server.http.delete, [url] * 4))
    assert answers == [204, 404, 404, 404]
    for path in (url, url + "/events", url + "/metrics", f"/v1/checkpoints/{checkpoint_id}"):
        problem(server.http.get(path), 404, "not_found")


@pytest.fixture(scope="module")
def small_queue(tmp_path_factory: pytest.TempPathFactory, series: Any) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("small-queue"), {"PALS_MAX_QUEUED_JOBS": "2"}) as running:
        running.table = csv_of(series)
        yield running


def test_a_full_queue_is_429_with_the_limit(small_queue: Server, problem: Problem) -> None:
    server = small_queue
    dataset = server.upload()["id"]
    jobs = [server.queue(dataset_id=dataset) for _ in range(2)]
    response = server.http.post("/v1/jobs", json={"dataset_id": dataset, "spec": SMALL})
    assert "2 unfinished jobs" in problem(response, 429, "too_many_jobs")["detail"]
    assert int(response.headers["retry-after"]) > 0
    server.http.post(f"/v1/jobs/{jobs[0]['id']}/cancel")
    assert server.queue(dataset_id=dataset)["status"] == "queued"


def test_a_job_and_a_deletion_of_its_dataset_at_once_never_meet(either: Server) -> None:
    server = either
    for _ in range(5):
        dataset = server.upload()["id"]
        with ThreadPoolExecutor(2) as threads:
            posted = threads.submit(server.http.post, "/v1/jobs", json={"dataset_id": dataset, "spec": SMALL})
            deleted = threads.submit(server.http.delete, f"/v1/datasets/{dataset}")
            answers = (posted.result().status_code, deleted.result().status_code)
        assert answers in {(202, 409), (404, 204)}
