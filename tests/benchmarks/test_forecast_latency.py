from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from benchmarks.forecast_latency import CALLERS, TARGET_P95_MS, measure, recent_values, report, summary
from cli.demo import INPUT_LEN
from cli.example_series import COLUMN


def test_percentiles_are_those_of_all_times() -> None:
    assert summary([float(ms) for ms in range(1, 102)]) == {"p50": 51.0, "p95": 96.0, "p99": 100.0, "max": 101.0}


def test_the_values_given_are_one_window() -> None:
    body = recent_values()
    assert len(body["timestamps"]) == len(body["values"][COLUMN]) == INPUT_LEN
    assert json.dumps(body, allow_nan=False)


def test_every_forecast_is_counted_once_and_a_refusal_ends_it() -> None:
    asked: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return httpx.Response(200 if len(asked) <= 1 + 2 + 3 * 5 else 503)

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://service") as http:
        figures = measure(http, "/forecasts", {"values": 1}, requests=5, warm_up=2)
        assert asked.count({"values": 1}) == 1 + 2 + 5 + 5
        assert asked.count({}) == 5
        assert figures["given_values_ms"]["p50"] <= figures["given_values_ms"]["max"]
        assert f"{CALLERS}_callers_at_once_ms" in figures
        with pytest.raises(httpx.HTTPStatusError):
            measure(http, "/forecasts", {}, requests=5, warm_up=0)


@pytest.mark.parametrize(("p95", "met"), [(TARGET_P95_MS - 0.1, True), (TARGET_P95_MS, False)])
def test_the_report_says_whether_the_target_is_met(p95: float, met: bool) -> None:
    figures = {"given_values_ms": {"p95": p95}}
    told = report({"sparsity": 0.5, "bytes": 10}, figures, requests=5)
    assert (told["met"], told["requests"], told["model"]["name"]) == (met, 5, "nstransformer")
