from __future__ import annotations

import shutil
from pathlib import Path

from sqlalchemy.engine import make_url

from jobstore.lifecycle import JobStatus
from jobstore.workers import WorkerIdentity, announce
from tests.api.conftest import Problem, Server, serving
from tests.servers.postgres import PostgresServer


def test_it_is_live_without_a_worker_and_ready_with_one(
    server: Server, problem: Problem, live_worker: WorkerIdentity
) -> None:
    assert server.http.get("/healthz").json() == {"status": "live"}
    ready = server.http.get("/readyz")
    assert ready.status_code == 200, ready.text
    assert set(ready.json()["parts"]) == {"database", "storage", "broker", "worker"}


def test_readiness_and_the_workers_list_say_what_each_slot_trains(server: Server, live_worker: WorkerIdentity) -> None:
    job_id = server.queue()["id"]
    lease = server.claim(job_id, worker=live_worker.id, slot="cpu-0")
    server.tell(lease, 1, progress={"step": 7, "total_steps": 9})

    ready = server.http.get("/readyz").json()
    assert ready["parts"]["worker"]["message"] == "1 live, 1 of 1 slots at work"
    [worker] = server.http.get("/v1/workers").json()["data"]
    assert [worker] == [{**shown, "seen_at": worker["seen_at"]} for shown in ready["workers"]]
    slot = {"name": "cpu-0", "device_classes": ["cpu", "auto"], "threads": 2, "gpu": None}
    assert worker["slots"] == [{**slot, "job": {"id": job_id, "step": 7, "total_steps": 9}}]
    server.end(lease, JobStatus.FAILED)


def test_readiness_names_what_is_missing(tmp_path: Path, problem: Problem) -> None:
    with serving(tmp_path, {"PALS_BROKER_URL": "redis://127.0.0.1:1/0"}) as server:
        response = server.http.get("/readyz")
        body = problem(response, 503, "not_ready")
        assert int(response.headers["retry-after"]) > 0
        missing = {name for name, part in body["parts"].items() if not part["ready"]}
        assert missing == {"broker", "worker"}
        assert {error["parameter"] for error in body["errors"]} == missing
        with server.database.write() as session:
            announce(session, WorkerIdentity((), {}))
        assert server.http.get("/readyz").json()["parts"]["worker"]["ready"] is True
        shutil.rmtree(server.artifacts.root, ignore_errors=True)
        server.artifacts.root.write_text("in the way")
        assert server.http.get("/readyz").json()["parts"]["storage"]["ready"] is False


def test_a_store_that_is_not_mounted_is_not_ready_and_takes_nothing(tmp_path: Path, server: Server) -> None:
    with serving(tmp_path) as before:
        before.upload(server.table)
        root = before.artifacts.root
    mounted = root.rename(tmp_path / "mounted")
    root.mkdir()
    with serving(tmp_path) as again:
        part = again.http.get("/readyz").json()["parts"]["storage"]
        assert part["ready"] is False
        assert "its folder is not mounted" in part["message"]
        upload = again.http.post("/v1/datasets", content=server.table, headers={"Content-Type": "text/csv"})
        assert upload.status_code == 507
        assert list(root.iterdir()) == []
        root.rmdir()
        mounted.rename(root)
        assert again.http.get("/readyz").json()["parts"]["storage"]["ready"] is True


def test_a_job_is_taken_while_the_broker_is_away(tmp_path: Path, server: Server) -> None:
    with serving(tmp_path, {"PALS_BROKER_URL": "redis://127.0.0.1:1/0"}) as alone:
        alone.table = server.table
        assert alone.queue()["status"] == "queued"


def test_a_database_that_is_away_is_503_without_its_address(
    tmp_path: Path, postgres_server: PostgresServer, problem: Problem
) -> None:
    url = postgres_server.create_database()
    with serving(tmp_path, {"PALS_DATABASE_URL": url}) as server:
        job = server.http.get("/v1/jobs")
        assert job.status_code == 200
        server.database.close()
        postgres_server.drop_database(url)
        response = server.http.get("/v1/jobs")
        problem(response, 503, "database_unavailable")
        assert int(response.headers["retry-after"]) > 0
        upload = server.http.post("/v1/datasets?name=x", content=b"a", headers={"Content-Type": "text/csv"})
        problem(upload, 503, "database_unavailable")
        assert server.http.get("/healthz").status_code == 200
        ready = problem(server.http.get("/readyz"), 503, "not_ready")
        assert ready["parts"]["database"]["ready"] is False
        assert make_url(url).database not in ready["detail"] + response.text
