from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pals_core.data.table import Table
from pals_core.forecast.forecaster import load_forecaster
from pals_core.training.train import train
from tests.api.conftest import Problem, Server, csv_of, serving


@pytest.fixture(scope="module")
def url(server: Server, best_checkpoint: Path) -> str:
    job = server.queue()
    lease = server.claim(job["id"])
    checkpoint_id = server.checkpoint(lease, 1, best_checkpoint)
    server.end(lease)
    return f"/v1/checkpoints/{checkpoint_id}/forecasts"


def rows_of(series: Table, stop: int, length: int) -> dict[str, Any]:
    times, values = series.times[stop - length : stop], series.values[stop - length : stop]
    return {
        "timestamps": [time.isoformat() for time in times],
        "values": {name: values[:, place].tolist() for place, name in enumerate(series.columns)},
    }


def test_without_a_body_it_goes_on_from_the_training_series(server: Server, url: str, best_checkpoint: Path) -> None:
    expected = load_forecaster(best_checkpoint).forecast()
    for request in ({}, {"json": {}}, {"json": None}):
        response = server.http.post(url, **request)
        assert response.status_code == 200, response.text
        forecast = response.json()
        assert forecast["checkpoint_id"] in url
        assert forecast["columns"] == list(expected.columns)
        assert forecast["timestamps"] == [time.isoformat() for time in expected.timestamps]
        for place, name in enumerate(expected.columns):
            assert forecast["values"][name] == pytest.approx(expected.values[:, place])


def test_intervals_come_with_the_forecast(server: Server, url: str, best_checkpoint: Path, problem: Problem) -> None:
    forecaster = load_forecaster(best_checkpoint)
    for body, levels in (({}, None), ({"levels": [50, 87.5]}, (50, 87.5)), ({"levels": []}, ())):
        intervals = server.http.post(url, json=body).json()["intervals"]
        expected = forecaster.forecast(levels=levels).intervals
        assert [interval["level"] for interval in intervals] == [interval.level for interval in expected]
        for shown, interval in zip(intervals, expected, strict=True):
            for place, name in enumerate(forecaster.header.columns):
                assert shown["lower"][name] == pytest.approx(interval.lower[:, place])
                assert shown["upper"][name] == pytest.approx(interval.upper[:, place])
    refused = problem(server.http.post(url, json={"levels": [80, 99.5]}), 422, "invalid_forecast_input")
    assert "23 residuals of the validation part" in refused["detail"]
    assert [error["pointer"] for error in refused["errors"]] == ["/levels/1"]


def test_farther_than_the_horizon_it_goes_on_without_intervals(
    server: Server, url: str, best_checkpoint: Path, problem: Problem
) -> None:
    expected = load_forecaster(best_checkpoint).forecast(horizon=10)
    forecast = server.http.post(url, json={"horizon": 10}).json()
    assert forecast["timestamps"] == [time.isoformat() for time in expected.timestamps]
    assert forecast["values"]["calm"] == pytest.approx(expected.values[:, 0])
    assert [value is None for value in forecast["intervals"][0]["upper"]["calm"]] == [False] * 4 + [True] * 6
    refused = problem(server.http.post(url, json={"horizon": 401}), 422, "invalid_forecast_input")
    assert [error["pointer"] for error in refused["errors"]] == ["/horizon"]


def test_from_given_values_and_from_a_dataset_it_is_the_same(server: Server, url: str, series: Table) -> None:
    given = server.http.post(url, json=rows_of(series, 100, 12))
    assert given.status_code == 200, given.text
    part = Table(series.times[:100], series.values[:100], series.columns, series.frequency)
    dataset = server.upload(csv_of(part))
    stored = server.http.post(url, json={"dataset_id": dataset["id"]})
    assert stored.status_code == 200, stored.text
    assert stored.json()["timestamps"] == given.json()["timestamps"]
    for name in series.columns:
        assert stored.json()["values"][name] == pytest.approx(given.json()["values"][name])


def test_input_that_does_not_fit_is_refused(server: Server, url: str, series: Table, problem: Problem) -> None:
    rows = rows_of(series, 100, 12)
    too_few = rows_of(series, 100, 5)
    lacking = {"timestamps": rows["timestamps"], "values": {"calm": rows["values"]["calm"]}}
    weekly = {**rows, "timestamps": [f"2026-{1 + week // 4:02}-{1 + 7 * (week % 4):02}" for week in range(12)]}
    no_times = {**rows, "timestamps": ["yesterday"] * 12}
    for body in (too_few, lacking, weekly, no_times):
        problem(server.http.post(url, json=body), 422, "invalid_forecast_input")
    other = server.upload(b"date,a\n2026-01-01,1\n2026-01-02,2\n2026-01-03,3\n")
    problem(server.http.post(url, json={"dataset_id": other["id"]}), 422, "invalid_forecast_input")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"timestamps": ["2026-01-01"]}, ""),
        ({"values": {"calm": [1.0]}}, ""),
        ({"timestamps": ["2026-01-01"], "values": {"calm": [1.0, 2.0]}}, ""),
        ({"timestamps": ["2026-01-01"], "values": {"calm": [1.0]}, "dataset_id": "ds_0"}, ""),
        ({"timestamps": [], "values": {}}, "/timestamps"),
        ({"timestamps": [5], "values": {"calm": [1.0]}}, "/timestamps/0"),
        ({"timestamps": ["2026-01-01"], "values": {"calm": ["x"]}}, "/values/calm/0"),
        ({"timestamps": ["20\0"], "values": {"calm": [1.0]}}, "/timestamps/0"),
        ({"timestamps": ["2026"], "values": {"a/b": [[]]}}, "/values/a~1b/0"),
        ({"dataset": "ds_0"}, "/dataset"),
        ({"future": {"timestamps": ["2026-01-01"]}}, "/future/values"),
        ({"future": {"timestamps": ["2026-01-01"], "values": {"sun": [1.0, 2.0]}}}, "/future"),
        ({"future": {"timestamps": ["2026-01-01"], "values": {"sun": ["x"]}}}, "/future/values/sun/0"),
        ({"future": []}, "/future"),
        ({"series": []}, "/series"),
        ({"series": "calm"}, "/series"),
        ({"horizon": 0}, "/horizon"),
        ({"horizon": 1.5}, "/horizon"),
        ({"horizon": 10**9}, "/horizon"),
        ({"levels": 80}, "/levels"),
        ({"levels": [80, 100]}, "/levels/1"),
        ({"levels": [0]}, "/levels/0"),
        ({"levels": ["wide"]}, "/levels/0"),
        ({"levels": [50] * 21}, "/levels"),
        ([], ""),
    ],
)
def test_a_body_that_is_none_is_pointed_at(server: Server, url: str, problem: Problem, body: Any, pointer: str) -> None:
    errors = problem(server.http.post(url, json=body), 422, "invalid_request")["errors"]
    assert pointer in [error["pointer"] for error in errors]


def checkpoint_of(server: Server, table: Table, folder: Path, **data: Any) -> str:
    """The URL of the forecasts of a checkpoint that is trained here and stored as a job's."""
    model = {"name": "nstransformer", "d_model": 8, "d_ff": 8, "heads": 2, "encoder_layers": 1}
    spec = {
        "data": {"input_len": 12, "horizon": 4, **data},
        "model": model,
        "method": "dense",
        "training": {"epochs": 1, "device": "cpu"},
    }
    trained = train(spec, table, folder)
    lease = server.claim(server.queue()["id"])
    checkpoint_id = server.checkpoint(lease, 1, trained.path)
    server.end(lease)
    return f"/v1/checkpoints/{checkpoint_id}/forecasts"


def test_a_known_future_is_given_with_the_request(
    server: Server, series: Table, tmp_path: Path, problem: Problem
) -> None:
    url = checkpoint_of(server, series, tmp_path, known_future=["noise"])
    lacking = problem(server.http.post(url), 422, "invalid_forecast_input")
    assert "noise" in lacking["detail"]
    assert str(series.times[-1].date() + timedelta(days=1)) in lacking["detail"]
    times = [str(series.times[-1].date() + timedelta(days=day)) for day in (1, 2, 3, 4)]
    future = {"timestamps": times, "values": {"noise": [0.5, 0.0, -0.5, 1.0]}}
    ahead = server.http.post(url, json={"future": future})
    assert ahead.status_code == 200, ahead.text
    assert ahead.json()["columns"] == ["calm", "rising"]
    assert [time[:10] for time in ahead.json()["timestamps"]] == times
    for place, day in ((1, "2021-11-17"), (3, "2021-11-19")):
        gap = {**future, "values": {"noise": [None if at == place else 0.5 for at in range(4)]}}
        detail = problem(server.http.post(url, json={"future": gap}), 422, "invalid_forecast_input")["detail"]
        assert f"'noise' is missing at time step {place + 1} of 4, {day}" in detail
    given = server.http.post(url, json=rows_of(series, 260, 12) | {"future": future})
    assert given.json()["values"]["calm"] == pytest.approx(ahead.json()["values"]["calm"])


def test_pooled_series_are_forecast_as_asked_for(
    server: Server, series: Table, tmp_path: Path, problem: Problem
) -> None:
    url = checkpoint_of(server, series, tmp_path, series="pooled", targets=["calm", "noise"])
    assert server.http.post(url).json()["columns"] == ["calm", "noise"]
    assert server.http.post(url, json={"series": ["noise"]}).json()["columns"] == ["noise"]
    rows = rows_of(series, 100, 20)
    assert server.http.post(url, json=rows).json()["columns"] == ["calm", "noise"]
    assert server.http.post(url, json=rows | {"series": ["rising"]}).json()["columns"] == ["rising"]
    rising = {**rows, "values": {"rising": rows["values"]["rising"]}}
    refused = problem(server.http.post(url, json=rising), 422, "invalid_forecast_input")
    assert "none of the series was in the training" in refused["detail"]
    # A dataset whose series end apart.
    ragged = [f"calm,2024-01-{day:02},{day % 4}" for day in range(1, 21)]
    ragged += [f"noise,2024-01-{day:02},{day % 3}" for day in range(5, 31)]
    dataset = server.upload("\n".join(["unique_id,ds,y", *ragged]).encode())
    answer = server.http.post(url, json={"dataset_id": dataset["id"]}).json()
    assert [value is None for value in answer["values"]["calm"]] == [False] * 4 + [True] * 4
    assert [value is None for value in answer["values"]["noise"]] == [True] * 4 + [False] * 4


def test_nan_is_no_value(server: Server, url: str, problem: Problem) -> None:
    body = '{"timestamps": ["2026-01-01"], "values": {"calm": [NaN]}}'
    response = server.http.post(url, content=body, headers={"Content-Type": "application/json"})
    assert problem(response, 422, "invalid_request")["errors"][0]["pointer"] == "/values/calm/0"


def test_an_unknown_dataset_is_pointed_at(server: Server, url: str, problem: Problem) -> None:
    body = problem(server.http.post(url, json={"dataset_id": "ds_0"}), 404, "not_found")
    assert body["errors"][0]["pointer"] == "/dataset_id"


def test_a_damaged_checkpoint_is_told_without_a_trace(
    server: Server, best_checkpoint: Path, tmp_path: Path, problem: Problem
) -> None:
    damaged = tmp_path / "damaged"
    contents = best_checkpoint.read_bytes()
    damaged.write_bytes(contents[:-1] + bytes([contents[-1] ^ 1]))
    lease = server.claim(server.queue()["id"])
    checkpoint_id = server.checkpoint(lease, 1, damaged)
    problem(server.http.post(f"/v1/checkpoints/{checkpoint_id}/forecasts"), 500, "invalid_checkpoint")
    server.end(lease)


@pytest.fixture(scope="module")
def starved_server(tmp_path_factory: pytest.TempPathFactory, series: Table) -> Iterator[Server]:
    """An API whose forecasts may not take the memory that torch needs."""
    variables = {"PALS_FORECAST_MEMORY_BYTES": str(64 << 20)}
    with serving(tmp_path_factory.mktemp("starved"), variables) as running:
        running.table = csv_of(series)
        yield running


def test_a_forecast_beyond_its_memory_says_so(starved_server: Server, best_checkpoint: Path, problem: Problem) -> None:
    server = starved_server
    lease = server.claim(server.queue()["id"])
    url = f"/v1/checkpoints/{server.checkpoint(lease, 1, best_checkpoint)}/forecasts"
    assert "64 MiB" in problem(server.http.post(url), 422, "forecast_too_large")["detail"]
