from __future__ import annotations

from pathlib import Path

import pytest

from pals_core.checkpoint.container import read_header
from tests.api.conftest import Problem, Server


def test_each_layer_of_the_best_checkpoint_is_shown_with_what_it_costs(either: Server, best_checkpoint: Path) -> None:
    server, header = either, read_header(best_checkpoint)
    job = server.queue()
    lease = server.claim(job["id"])
    checkpoint_id = server.checkpoint(lease, 1, best_checkpoint)
    shown = server.http.get(f"/v1/jobs/{job['id']}/layers").json()

    assert (shown["job_id"], shown["checkpoint_id"], shown["epoch"], shown["step"]) == (job["id"], checkpoint_id, 1, 10)
    assert [layer["name"] for layer in shown["data"]] == [*header.layers], "in the order of the network"
    name = "encoder_embedding.value.weight"
    layer = header.layers[name]
    assert next(row for row in shown["data"] if row["name"] == name) == {
        "name": name,
        "shape": [16, 3, 3],
        "dtype": "float32",
        "weights": 144,
        "active": layer.active,
        "sparsity": pytest.approx(1 - layer.active / 144),
        "flops_dense": 2 * 12 * 144,
        "flops_sparse": 2 * 12 * layer.active,
        "bytes": layer.bytes,
    }
    assert 4 * layer.active <= layer.bytes <= 4 * layer.active + 20, "values, and at most a bit for each weight"
    for column in ("weights", "active", "bytes"):
        assert shown["total"][column] == sum(row[column] for row in shown["data"])
    products = sum(product["flops"] for product in shown["products"])
    assert {product["kind"] for product in shown["products"]} == {"matrix"}
    for column in ("flops_dense", "flops_sparse"):
        assert shown["total"][column] == sum(row[column] for row in shown["data"]) + products
    assert shown["total"]["sparsity"] == pytest.approx(header.sparsity)
    server.end(lease)


def test_a_job_without_a_checkpoint_has_no_layers_to_show(
    server: Server, best_checkpoint: Path, problem: Problem
) -> None:
    job = server.queue()
    url = f"/v1/jobs/{job['id']}/layers"
    assert "first epoch" in problem(server.http.get(url), 404, "not_found")["detail"]
    lease = server.claim(job["id"])
    checkpoint_id = server.checkpoint(lease, 1, best_checkpoint)
    assert server.http.get(url).status_code == 200
    server.http.delete(f"/v1/checkpoints/{checkpoint_id}")
    problem(server.http.get(url), 404, "not_found")
    problem(server.http.get("/v1/jobs/job_none/layers"), 404, "not_found")
    server.end(lease)
