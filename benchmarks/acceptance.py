"""The two real series through HTTP on both stacks, and every mask update checked against the rule.

    make acceptance SERIES=folder/of/the/series

ETTh1 (96 steps in, 96 ahead, DLinear, 2 epochs) and illness (36 in, 24 ahead, NSTransformer at full size, Δt = 5,
γ = λ = 1.1, three seeds), each on the embedded stack and on PostgreSQL + Redis with separate processes. The log of
each PALS job is then replayed: every decision must be the one that the rule gives for the logged loss and sparsity,
and every count the one that the rule gives for the logged rate.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.command import run_command
from benchmarks.machine import provenance
from benchmarks.published import ILLNESS_24_NSTRANSFORMER
from pals_core.sparsity.decision import Best, Move, decide, updated_best
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.spec import PalsMethodSpec
from tests.e2e.stacks import Service, embedded, production
from tests.servers.postgres import any_postgres
from tests.servers.redis import any_redis

ETTH1 = {
    "data": {"input_len": 96, "horizon": 96, "split": {"train": 8640, "validation": 2880, "test": 2880}},
    "model": "dlinear",
    "training": {"epochs": 2},
}


def illness(seed: int) -> dict[str, Any]:
    return {
        "data": {"input_len": 36, "label_len": 18, "horizon": 24},
        "model": "nstransformer",
        "method": {"name": "pals", "prune_rate_factor": 1.1, "loss_tolerance": 1.1, "update_interval": 5},
        "training": {"seed": seed},
    }


def follow_rule(spec: dict[str, Any], events: list[dict[str, Any]]) -> int:
    """Replay the log of a PALS job; returns the number of updates. Raises AssertionError where one breaks the rule."""
    method = PalsMethodSpec.model_validate(spec["method"])
    started = next(event["data"] for event in events if event["type"] == "message" and "total_steps" in event["data"])
    schedule = UpdateSchedule.of(method, steps_per_epoch=started["steps_per_epoch"], epochs=started["epochs"])
    last_step = max(event["data"]["step"] for event in events if event["type"] == "epoch")
    updates = [event["data"] for event in events if event["type"] == "mask_update"]
    assert [update["step"] for update in updates] == [s for s in range(1, last_step + 1) if schedule.is_update(s)]
    best: Best | None = None
    sparsity = 1 - method.initial_density
    maskable = started["maskable_parameters"]
    for update in updates:
        assert abs(update["sparsity_before"] - sparsity) < 1e-9, update
        assert update["move"] == decide(update["validation_loss"], update["sparsity_before"], best, method), update
        assert update["prune_rate"] == schedule.rate_at(update["step"]), update
        best = updated_best(update["validation_loss"], update["sparsity_before"], best)
        assert round((update["sparsity"] - sparsity) * maskable) == update["pruned"] - update["grown"], update
        grows = {Move.SHRINK: update["pruned"] > update["grown"], Move.STABLE: update["pruned"] == update["grown"]}
        assert grows.get(Move(update["move"]), update["grown"] >= update["pruned"]), update
        sparsity = update["sparsity"]
    return len(updates)


def run_job(service: Service, dataset_id: str, name: str, spec: dict[str, Any], bars: Progress) -> dict[str, Any]:
    """Train over HTTP to the end, with a bar; returns what came out."""
    bar = bars.add_task(f"{service.name}: {name}", total=None)
    began = time.monotonic()
    posted = service.http.post("/v1/jobs", json={"dataset_id": dataset_id, "name": name, "spec": spec})
    posted.raise_for_status()
    job_id = posted.json()["id"]
    events = []
    for event in service.stream(job_id):
        events.append(event)
        if event["type"] == "progress":
            bars.update(bar, completed=event["data"]["step"], total=event["data"]["total_steps"])
    job = service.http.get(f"/v1/jobs/{job_id}").json()
    if job["status"] != "succeeded":
        raise SystemExit(f"{name} on {service.name}: {job['status']}: {job['error']}")
    bars.update(bar, completed=1, total=1)
    method = job["spec"]["method"]["name"]
    best = next(c for c in service.http.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"] if c["is_best"])
    return {
        "stack": service.name,
        "job": name,
        "seed": job["spec"]["training"]["seed"],
        "mse": job["result"]["metrics"]["mse"],
        "mae": job["result"]["metrics"]["mae"],
        "sparsity": job["result"]["sparsity"],
        "epoch": job["result"]["epoch"],
        "checkpoint_bytes": best["bytes"],
        "sha256": best["sha256"],
        "updates_that_follow_the_rule": follow_rule(job["spec"], events) if method == "pals" else 0,
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", type=Path, help="folder with ETTh1.csv and national_illness.csv")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2020, 2021, 2022])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/acceptance.json"))
    arguments = parser.parse_args()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    runs = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("embedded", "production"):
            (folder / name).mkdir()
            with ExitStack() as running:
                if name == "embedded":
                    service = running.enter_context(embedded(folder / name))
                else:
                    postgres = running.enter_context(any_postgres())
                    redis = running.enter_context(any_redis())
                    service = running.enter_context(production(folder / name, postgres.create_database(), redis))
                bars = running.enter_context(Progress(*columns))
                etth1 = service.upload("ETTh1", (arguments.series / "ETTh1.csv").read_bytes())["id"]
                weekly = service.upload("illness", (arguments.series / "national_illness.csv").read_bytes())["id"]
                runs.append(run_job(service, etth1, "ETTh1 96 → 96 DLinear", ETTH1, bars))
                for seed in arguments.seeds:
                    runs.append(run_job(service, weekly, "illness 36 → 24 NSTransformer", illness(seed), bars))
    spread = {}
    for name in ("embedded", "production"):
        mine = [run for run in runs if run["stack"] == name and run["job"].startswith("illness")]
        spread[name] = {
            key: {
                "mean": statistics.mean(run[key] for run in mine),
                "lowest": min(run[key] for run in mine),
                "highest": max(run[key] for run in mine),
            }
            for key in ("mse", "mae", "sparsity", "seconds")
        }
    report = provenance() | {
        "published": ILLNESS_24_NSTRANSFORMER,
        "runs": runs,
        "illness": spread,
    }
    arguments.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    for run in runs:
        print(
            f"{run['stack']:10} {run['job']:30} seed {run['seed']}: MSE {run['mse']:.4f} MAE {run['mae']:.4f} "
            f"S {run['sparsity']:.3f} in {run['seconds']} s, {run['updates_that_follow_the_rule']} updates by the rule"
        )
    for name, figures in spread.items():
        print(f"{name}: illness MSE {figures['mse']['mean']:.4f}, S {figures['sparsity']['mean']:.3f}")
    print(f"published: MSE {ILLNESS_24_NSTRANSFORMER['mse']} at S {ILLNESS_24_NSTRANSFORMER['sparsity']}")


if __name__ == "__main__":
    run_command(main)
