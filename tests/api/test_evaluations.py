from __future__ import annotations

from pathlib import Path

import pytest

from pals_core.evaluation.document import Evaluation
from pals_core.training.events import CheckpointSaved, TrainingEvent
from tests.api.conftest import Problem, Server


@pytest.fixture
def evaluation_file(trained: list[TrainingEvent]) -> Path:
    saved = trained[-2]
    assert isinstance(saved, CheckpointSaved)
    assert saved.evaluation_path is not None
    return Path(saved.evaluation_path)


def test_the_evaluation_is_what_the_training_wrote(
    either: Server, best_checkpoint: Path, evaluation_file: Path, problem: Problem
) -> None:
    server = either
    job = server.queue()
    url = f"/v1/jobs/{job['id']}/evaluation"
    assert "end of the training" in problem(server.http.get(url), 404, "not_found")["detail"]
    lease = server.claim(job["id"])
    server.checkpoint(lease, 1, best_checkpoint)
    problem(server.http.get(url), 404, "not_found")

    checkpoint_id = server.checkpoint(lease, 2, best_checkpoint, evaluation_file)
    answer = server.http.get(url)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.content == evaluation_file.read_bytes()
    shown = answer.json()
    assert len(shown["forecaster"]["by_step"]["original"]["mae"]) == shown["horizon"] == 4
    assert len(shown["naive"]["by_column"]["mase"]) == len(shown["columns"]) == 3
    assert [interval["level"] for interval in shown["intervals"]] == [80, 95]
    Evaluation.model_validate(shown)

    server.http.delete(f"/v1/checkpoints/{checkpoint_id}")
    problem(server.http.get(url), 404, "not_found")
    server.end(lease)


def test_it_is_documented_field_by_field(server: Server, problem: Problem) -> None:
    problem(server.http.get("/v1/jobs/job_none/evaluation"), 404, "not_found")
    document = server.http.get("/openapi.json").json()
    operation = document["paths"]["/v1/jobs/{job_id}/evaluation"]["get"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Evaluation"}
    fields = document["components"]["schemas"]["Evaluation"]["properties"]
    assert {"forecaster", "naive", "intervals", "samples", "season"} <= set(fields)


def test_bytes_that_are_gone_are_told_without_a_trace(
    server: Server, best_checkpoint: Path, evaluation_file: Path, problem: Problem
) -> None:
    job = server.queue()
    lease = server.claim(job["id"])
    before = set((server.artifacts.root / "default" / "evaluations").glob("*"))
    server.checkpoint(lease, 1, best_checkpoint, evaluation_file)
    (stored,) = set((server.artifacts.root / "default" / "evaluations").glob("*")) - before
    stored.unlink()
    problem(server.http.get(f"/v1/jobs/{job['id']}/evaluation"), 503, "storage_unavailable")
    server.end(lease)
