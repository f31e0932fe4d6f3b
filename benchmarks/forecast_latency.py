"""How long a forecast takes over HTTP: one after another, each of one window, with a model that is loaded already.

    make forecast-latency

Trains the demonstration's model on an embedded service of its own. The first forecast starts the process that forecasts
and loads the model; `--warm-up` more are not counted. Times are what the caller waits, from sending to having read the
answer, on one kept connection.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from benchmarks.command import run_command
from benchmarks.machine import provenance
from cli.demo import INPUT_LEN, SPEC
from cli.example_series import COLUMN, SERIES_PATH, measured
from cli.throwaway_service import throwaway_service, wait_until_ready
from pals_client import Client

TARGET_P95_MS = 50.0
CALLERS = 4


def recent_values() -> dict[str, Any]:
    """A forecast's body: the last steps of the example series."""
    series = measured()
    return {
        "timestamps": [moment.isoformat() for moment in series.times[-INPUT_LEN:]],
        "values": {COLUMN: series.values[-INPUT_LEN:]},
    }


def milliseconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)


def summary(times: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    percentiles = statistics.quantiles(times, n=100, method="inclusive")
    figures = {"p50": percentiles[49], "p95": percentiles[94], "p99": percentiles[98], "max": max(times)}
    return {name: round(figure, 2) for name, figure in figures.items()}


def train(client: Client, spec: dict[str, Any]) -> dict[str, Any]:
    """The best checkpoint of a training over HTTP."""
    dataset = client.upload_dataset(SERIES_PATH)
    job = client.wait(client.create_job(dataset["id"], spec)["id"])
    if job["status"] != "succeeded":
        raise SystemExit(f"the training {job['status']}: {job['error']}")
    best: dict[str, Any] = next(one for one in client.checkpoints(job["id"]) if one["is_best"])
    return best


def measure(http: httpx.Client, url: str, body: dict[str, Any], *, requests: int, warm_up: int) -> dict[str, Any]:
    """First forecast, then percentiles: of given values, of the training's end, and of several callers at once."""

    def forecast(given: dict[str, Any]) -> None:
        http.post(url, json=given).raise_for_status()

    load = os.getloadavg()[0]
    cold = milliseconds(lambda: forecast(body))
    for _ in range(warm_up):
        forecast(body)
    given = [milliseconds(lambda: forecast(body)) for _ in range(requests)]
    stored = [milliseconds(lambda: forecast({})) for _ in range(requests)]
    began = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as callers:
        at_once = [*callers.map(lambda _: milliseconds(lambda: forecast(body)), range(requests))]
    seconds = time.perf_counter() - began
    return {
        # Processes of others that wanted a core in the minute before and after: what they take is in the times.
        "load_average": [round(load, 1), round(os.getloadavg()[0], 1)],
        "first_ms": round(cold, 1),
        "given_values_ms": summary(given),
        "end_of_training_ms": summary(stored),
        f"{CALLERS}_callers_at_once_ms": summary(at_once),
        f"{CALLERS}_callers_forecasts_per_second": round(requests / seconds, 1),
    }


def report(best: dict[str, Any], figures: dict[str, Any], *, requests: int) -> dict[str, Any]:
    return provenance() | {
        "model": SPEC["model"],
        "horizon": SPEC["data"]["horizon"],
        "input_len": INPUT_LEN,
        "sparsity": best["sparsity"],
        "checkpoint_bytes": best["bytes"],
        "requests": requests,
        **figures,
        "target_p95_ms": TARGET_P95_MS,
        "met": figures["given_values_ms"]["p95"] < TARGET_P95_MS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--warm-up", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=SPEC["training"]["epochs"])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/forecast_latency.json"))
    arguments = parser.parse_args()
    spec = SPEC | {"training": SPEC["training"] | {"epochs": arguments.epochs}}
    with throwaway_service() as address, Client(address) as client:
        wait_until_ready(client)
        best = train(client, spec)
        with httpx.Client(base_url=address, timeout=120, trust_env=False) as http:
            url = best["urls"]["forecasts"]
            figures = measure(http, url, recent_values(), requests=arguments.requests, warm_up=arguments.warm_up)
    result = report(best, figures, requests=arguments.requests)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    for name, figure in figures.items():
        print(f"{name:36} {figure}")
    print(f"p95 of given values {'under' if result['met'] else 'NOT under'} {TARGET_P95_MS:g} ms")


if __name__ == "__main__":
    run_command(main)
