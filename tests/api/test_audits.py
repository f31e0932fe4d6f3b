from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from jobstore.artifacts import get_artifact, new_artifact
from jobstore.database import now
from jobstore.datasets import create_dataset
from jobstore.tables import Dataset
from tests.api.conftest import SMALL, TENANT, Problem, Server, serving


def orphan(server: Server, *, expired: bool) -> str:
    """A dataset whose auditing process is gone."""
    with server.database.write() as session:
        artifact = new_artifact(session, TENANT, "datasets")
    with server.artifacts.writer(artifact.key) as writer:
        writer.write(server.table)
        blob = writer.commit()
    with server.database.write() as session:
        dataset = create_dataset(
            session,
            tenant_id=TENANT,
            name="orphan",
            media_type="text/csv",
            artifact_id=artifact.id,
            blob=blob,
            audit_seconds=3600,
        )
        if expired:
            session.get_one(Dataset, dataset.id).audit_expires_at = now(session) - timedelta(seconds=1)
        return dataset.id


def settled(server: Server, dataset_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        dataset: dict[str, Any] = server.http.get(f"/v1/datasets/{dataset_id}").json()
        if dataset["status"] != "auditing":
            return dataset
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_audit_whose_process_died_is_taken_over(either: Server) -> None:
    assert settled(either, orphan(either, expired=True))["status"] == "ready"


def test_an_audit_of_bytes_that_are_gone_says_so(server: Server) -> None:
    dataset_id = orphan(server, expired=False)
    with server.database.write() as session:
        dataset = session.get_one(Dataset, dataset_id)
        assert dataset.artifact_id is not None
        server.artifacts.delete(get_artifact(session, dataset.artifact_id).key)
        dataset.audit_expires_at = now(session) - timedelta(seconds=1)
    dataset_now = settled(server, dataset_id)
    assert dataset_now["status"] == "invalid"
    assert dataset_now["error"]["code"] == "audit_bytes_missing"


def test_an_audit_waits_for_a_store_that_does_not_answer(tmp_path: Path, server: Server) -> None:
    with serving(tmp_path) as alone:
        alone.table = server.table
        dataset_id = orphan(alone, expired=False)
        away = alone.artifacts.root.rename(tmp_path / "away")
        with alone.database.write() as session:
            session.get_one(Dataset, dataset_id).audit_expires_at = now(session) - timedelta(seconds=1)
        while "audit_put_off" not in (tmp_path / "stderr").read_text():
            time.sleep(0.1)
        assert alone.http.get(f"/v1/datasets/{dataset_id}").json()["status"] == "auditing"
        away.rename(alone.artifacts.root)
        with alone.database.write() as session:
            session.get_one(Dataset, dataset_id).audit_expires_at = now(session) - timedelta(seconds=1)
        assert settled(alone, dataset_id)["status"] == "ready"


def test_a_job_on_a_dataset_under_audit_is_told_to_come_back(server: Server, problem: Problem) -> None:
    dataset_id = orphan(server, expired=False)
    response = server.http.post("/v1/jobs", json={"dataset_id": dataset_id, "spec": SMALL})
    problem(response, 409, "dataset_auditing")
    assert int(response.headers["retry-after"]) > 0
    with server.database.write() as session:
        session.get_one(Dataset, dataset_id).audit_expires_at = now(session) - timedelta(seconds=1)
    assert settled(server, dataset_id)["status"] == "ready"


def test_an_audit_beyond_its_memory_makes_the_dataset_invalid(tmp_path: Path, problem: Problem) -> None:
    with serving(tmp_path, {"PALS_AUDIT_MEMORY_BYTES": str(450 << 20)}) as server:
        header = b"date," + b",".join(b"c%d" % column for column in range(200))
        row = b"2026-01-01," + b",".join(b"%d.25" % column for column in range(200))
        content = b"\n".join([header, *[row] * 80_000])
        response = server.http.post("/v1/datasets?name=x", content=content, headers={"Content-Type": "text/csv"})
        assert response.status_code in {201, 202}
        dataset = settled(server, response.json()["id"])
        assert dataset["status"] == "invalid"
        assert dataset["error"]["code"] == "audit_out_of_memory"
        refused = server.http.post("/v1/jobs", json={"dataset_id": dataset["id"], "spec": SMALL})
        body = problem(refused, 422, "invalid_dataset")
        assert body["errors"][0]["pointer"] == "/dataset_id"
        again = server.http.post(
            "/v1/datasets?name=x", content=b"date,a\n2026-01-01,1\n2026-01-02,2\n", headers={"Content-Type": "text/csv"}
        )
        assert again.status_code == 201, again.text


def test_an_audit_beyond_its_time_makes_the_dataset_invalid(tmp_path: Path) -> None:
    with serving(tmp_path, {"PALS_AUDIT_SECONDS": "0.001"}) as server:
        response = server.http.post(
            "/v1/datasets?name=x", content=b"date,a\n2026-01-01,1\n", headers={"Content-Type": "text/csv"}
        )
        dataset = settled(server, response.json()["id"])
        assert dataset["status"] == "invalid"
        assert dataset["error"]["code"] == "audit_timeout"
