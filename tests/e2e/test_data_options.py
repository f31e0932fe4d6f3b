"""Pooled series and known-future columns from the upload to the forecast; neither depends on the stack."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.stacks import embedded

if TYPE_CHECKING:
    from tests.e2e.stacks import Service

FIRST = date(2023, 1, 1)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with embedded(tmp_path_factory.mktemp("embedded")) as service:
        yield service


def day(number: int) -> str:
    return str(FIRST + timedelta(days=number))


def trained(service: Service, table: str, data: dict[str, Any], model: Any) -> tuple[dict[str, Any], str]:
    """The job, once it has succeeded, and the URL of its best checkpoint's forecasts."""
    dataset = service.upload("series", table.encode())
    assert dataset["status"] == "ready"
    spec = {"data": {"horizon": 4, "input_len": 12, **data}, "model": model, "training": {"epochs": 2}}
    plan = service.http.post(
        "/v1/jobs", params={"validate_only": "true"}, json={"dataset_id": dataset["id"], "spec": spec}
    )
    assert plan.status_code == 200, plan.text
    posted = service.http.post("/v1/jobs", json={"dataset_id": dataset["id"], "spec": spec})
    assert posted.status_code == 202, posted.text
    job = service.wait(posted.json()["id"], "succeeded", "failed")
    assert job["status"] == "succeeded", job["error"]
    assert job["progress"]["total_steps"] == plan.json()["estimate"]["total_steps"]
    checkpoints = service.http.get(f"/v1/jobs/{job['id']}/checkpoints").json()["data"]
    best = next(checkpoint for checkpoint in checkpoints if checkpoint["is_best"])
    return job, f"/v1/checkpoints/{best['id']}/forecasts"


def test_series_of_a_long_table_are_pooled(service: Service) -> None:
    rows = ["unique_id,ds,y"]
    for name, start, stop in (("north", 0, 240), ("south", 60, 240), ("west", 20, 200)):
        rows += [f"{name},{day(number)},{math.sin(number / 5) * (2 + start):.4f}" for number in range(start, stop)]
    job, url = trained(service, "\n".join(rows), {}, "dlinear")
    assert job["spec"]["data"]["series"] == "pooled"
    assert job["spec"]["data"]["targets"] == ["north", "south", "west"]
    assert math.isfinite(job["result"]["metrics"]["original"]["mse"])
    forecast = service.http.post(url, json={"series": ["west", "north"]}, timeout=90)
    assert forecast.status_code == 200, forecast.text
    answer = forecast.json()
    own = {
        name: [time[:10] for time, value in zip(answer["timestamps"], values, strict=True) if value is not None]
        for name, values in answer["values"].items()
    }
    assert own == {
        "west": [day(number) for number in range(200, 204)],
        "north": [day(number) for number in range(240, 244)],
    }
    joint = {"horizon": 4, "input_len": 12, "series": "joint"}
    refused = service.http.post(
        "/v1/jobs", json={"dataset_id": job["dataset_id"], "spec": {"data": joint, "model": "dlinear"}}
    )
    assert refused.status_code == 422
    assert {error["pointer"] for error in refused.json()["errors"]} == {"/spec/data/series"}


def test_a_known_future_is_trained_on_and_asked_for(service: Service) -> None:
    rows = ["date,sales,holiday"]
    rows += [f"{day(number)},{10 + 5 * (number % 7 == 0) + number % 3},{int(number % 7 == 0)}" for number in range(240)]
    model = {"name": "transformer", "d_model": 8, "d_ff": 8, "heads": 2, "encoder_layers": 1}
    job, url = trained(service, "\n".join(rows), {"known_future": ["holiday"]}, model)
    assert job["spec"]["data"]["targets"] == ["sales"]
    without = service.http.post(url, json={}, timeout=90)
    assert without.status_code == 422
    assert "holiday" in without.json()["detail"]
    ahead = {"timestamps": [day(number) for number in range(240, 244)], "values": {"holiday": [0, 0, 0, 0]}}
    plain = service.http.post(url, json={"future": ahead}, timeout=90)
    assert plain.status_code == 200, plain.text
    feast = service.http.post(url, json={"future": {**ahead, "values": {"holiday": [0, 1, 0, 0]}}}, timeout=90)
    assert plain.json()["columns"] == ["sales"]
    assert plain.json()["values"] != feast.json()["values"]
