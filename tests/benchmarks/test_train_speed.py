from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.speed_cases import CASES, METHODS, JobCounts, job_counts, shortened
from benchmarks.speed_child import answer
from benchmarks.speed_job import Run, Spread, updating_epoch, whole_job
from benchmarks.speed_tables import markdown, summary
from benchmarks.train_speed import measure, rounded, write
from pals_core.data.audit import profile_of
from pals_core.data.table import Table
from pals_core.feasibility import plan


@pytest.fixture(scope="module")
def illness() -> Table:
    times = pd.date_range("2002-01-01", periods=966, freq="7D").as_unit("us")
    return Table(times, np.random.default_rng(0).normal(size=(966, 7)), tuple("abcdefg"), "W-TUE")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an ETTh1.csv of noise."""
    folder = tmp_path_factory.mktemp("series")
    times = pd.date_range("2016-07-01", periods=14_400, freq="h")
    values = np.random.default_rng(0).normal(size=(14_400, 2)).round(3)
    pd.DataFrame({"date": times, "a": values[:, 0], "b": values[:, 1]}).to_csv(folder / "ETTh1.csv", index=False)
    return folder


def test_the_illness_job_is_the_published_one(illness: Table) -> None:
    spec = CASES["illness"].spec(illness, "pals", {})

    assert spec.model.model_dump()["d_model"] == 512
    assert job_counts(spec, illness) == JobCounts(steps=190, epochs=10, updates=25, late_decisions=13)


@pytest.mark.parametrize(("steps", "epochs", "updates"), [(6, 1, 1), (19, 1, 3), (60, 4, 12)])
def test_a_shortened_job_has_the_steps_asked_for_and_whole_evaluations(
    illness: Table, steps: int, epochs: int, updates: int
) -> None:
    whole = CASES["illness"].spec(illness, "pals", {})
    short = plan(shortened(whole, illness, steps), profile_of(illness))

    assert (short.total_steps, short.updates) == (steps, updates)
    assert short.total_steps // short.steps_per_epoch == epochs
    before = plan(whole, profile_of(illness)).windows
    assert (short.windows.validation, short.windows.test) == (before.validation, before.test)


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_can_be_shortened(illness: Table, method: str) -> None:
    assert plan(shortened(CASES["illness"].spec(illness, method, {}), illness, 8), profile_of(illness)).total_steps == 8


def request(folder: Path, loop: str, method: str) -> dict[str, Any]:
    return {
        "loop": loop,
        "case": "etth1-dlinear",
        "series": str(folder),
        "method": method,
        "steps": 41,
        "training": {"seed": 1},
        "device": "cpu",
        "threads": None,
    }


@pytest.mark.parametrize("loop", ["ours", "reference"])
def test_a_timed_run_tells_the_calls_of_its_parts(folder: Path, loop: str) -> None:
    told = answer(request(folder, loop, "pals"))

    calls = {part: len(seconds) for part, seconds in told["calls"].items()}
    assert (told["steps"], told["epochs"]) == (41, 1)
    assert {part: calls[part] for part in ("forward", "decision", "mask update", "evaluation", "test evaluation")} == {
        "forward": 41,
        "decision": 2,
        "mask update": 2,
        "evaluation": 1,
        "test evaluation": 1,
    }
    assert 0 < told["sparsity"] < 1
    assert sum(map(sum, told["calls"].values())) <= told["seconds"]
    assert told["peak_bytes"] >= told["peak_bytes_before"] > 2**20


def test_the_floor_counts_the_products_of_a_step(folder: Path) -> None:
    told = measure(request(folder, "floor", "dense"))

    # Two layers 96 → 96, on 32 windows of 2 columns; backward there is no gradient of the input.
    assert told["flops_per_step"] == 2 * 2 * (2 * 32 * 2 * 96 * 96)
    assert told["weights"] == 2 * (96 * 96 + 96)
    assert told["gflops_per_second"] > 0


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"etth1-dlinear ours pals failed:[\s\S]*FileNotFoundError"):
        measure(request(tmp_path, "ours", "pals"))


COUNTS = JobCounts(steps=100, epochs=10, updates=15, late_decisions=5)
CALLS = {
    "data": [0.1, 0.1, 0.1, 0.1],
    "forward": [3.0, 1.0, 1.0, 1.0],
    "backward": [2.0, 2.0, 2.0, 2.0],
    "optimiser": [0.5, 0.5, 0.5, 0.5],
    "masks": [0.0, 0.0, 0.2, 0.2],
    "decision": [4.0, 4.0],
    "mask update": [1.0, 3.0],
    "evaluation": [5.0],
    "checkpoint": [1.0],
    "test evaluation": [6.0],
}
RUN = Run(steps=4, epochs=2, seconds=sum(map(sum, CALLS.values())) + 2.0, calls=CALLS)


def test_a_whole_job_is_each_part_times_how_often_it_happens() -> None:
    job = whole_job(RUN, COUNTS, published=False)

    assert job == pytest.approx(
        {
            "data": 10.0,
            "zero gradients": 0.0,
            "forward": 100.0,
            "backward": 200.0,
            "optimiser": 50.0,
            "masks": 10.0,
            "rest": 50.0,
            "decision": 60.0,
            "mask update": 30.0,
            "evaluation": 50.0,
            "checkpoint": 5.0,
            "state": 0.0,
            "test evaluation": 6.0,
            "result": 0.0,
            "warm-up": 2.0,
        }
    )
    published = whole_job(RUN, COUNTS, published=True)
    assert published.pop("late decisions") == 20.0
    assert published.pop("test evaluation of each epoch") == 54.0
    assert published == job


def test_an_epoch_with_updates_has_its_steps_its_updates_and_its_end() -> None:
    step = 0.1 + 1 + 2 + 0.5 + 0.1 + 0.5
    assert updating_epoch(RUN, COUNTS, interval=5) == pytest.approx(10 * step + 2 * (4 + 2) + 5 + 0.5)


@pytest.mark.parametrize(("step", "states"), [(3.0, 10), (0.3, 5), (0.05, 1), (0.01, 0)])
def test_a_job_writes_a_state_after_each_epoch_that_ends_five_seconds_after_the_last(step: float, states: int) -> None:
    calls = {"forward": [step, step], "backward": [0.0], "optimiser": [0.0], "state": [7.0]}
    run = Run(steps=2, epochs=1, seconds=2 * step + 7.0, calls=calls)
    counts = JobCounts(steps=100, epochs=10, updates=0, late_decisions=0)

    assert whole_job(run, counts, published=False)["state"] == pytest.approx(states * 7)
    assert updating_epoch(run, counts, interval=5) == pytest.approx(10 * step + 7 / math.ceil(5 / (10 * step)))


def runs(loop: str, method: str, factor: float) -> list[dict[str, Any]]:
    calls = {part: [factor * second for second in seconds] for part, seconds in CALLS.items()}
    if method == "dense":
        calls = {part: seconds for part, seconds in calls.items() if part not in ("decision", "mask update")}
    facts = {
        "precision": "fp32",
        "steps": 4,
        "epochs": 2,
        "sparsity": 0.1,
        "calls": calls,
        "peak_bytes_before": 2**20,
        "threads": 2,
    }
    seconds = sum(map(sum, calls.values()))
    return [
        facts | {"round": number, "loop": loop, "method": method, "seconds": seconds, "peak_bytes": peak * 2**20}
        for number, peak in enumerate((100, 110 if method == "dense" else 121, 100))
    ]


def case() -> dict[str, Any]:
    floor = {"flops_per_step": 10**10, "weights": 10**7, "gflops_per_second": 10.0}
    content: dict[str, Any] = {
        "spec": {
            "model": {"name": "nstransformer", "d_model": 512, "d_ff": 2048},
            "data": {"input_len": 36, "horizon": 24},
            "training": {"batch_size": 32},
            "method": {"update_interval": 5},
        },
        "job": asdict(COUNTS),
        "aims": {"fp32": 2.0, "bf16": 4.0},
        "runs": [
            *({"round": number, "loop": "floor", "method": "dense"} | floor for number in range(3)),
            *runs("ours", "pals", 1.0),
            *runs("ours", "dense", 1.0),
            *runs("reference", "pals", 3.0),
            *runs("reference", "dense", 2.0),
        ],
    }
    return content | {"summary": summary(content)}


def test_ratios_are_taken_within_each_round() -> None:
    told = {name: spread["median"] for name, spread in case()["summary"].items()}

    assert told["times_as_fast_for_the_same_work"] == pytest.approx(3)
    assert told["times_as_fast_as_the_reference"] > 3
    assert told["dense_times_as_fast_as_the_reference"] == pytest.approx(2)
    assert told["mask_update_seconds_ours"] == 2
    assert told["mask_update_seconds_reference"] == 6
    assert told["mask_update_to_two_sorts"] == pytest.approx(1 / 3)
    assert case()["summary"]["peak_memory_pals_to_dense"] == {"median": 1, "lowest": 1, "highest": pytest.approx(1.1)}
    assert told["dense_step_share_of_the_floor"] == pytest.approx(1 / 3.7)
    assert told["dense_forward_and_backward_share_of_the_floor"] == pytest.approx(1 / 3)


def page_of(told: dict[str, Any], *vector_units: str) -> str:
    machine = {"processor": "P", "vector_units": vector_units, "cores": 2, "gpu": None, "torch": "2", "python": "3"}
    report = {"date": "2021-01-01", "commit": "abc", "machine": machine, "device": "cpu", "training": {"seed": 1}}
    return markdown(report | {"rounds": 3, "steps": 4, "cases": {"illness": told}})


@pytest.mark.parametrize(
    ("precision", "vector_units", "aim"),
    [
        ("fp32", ["avx2"], "2.0 in fp32"),
        ("fp32", ["avx512f", "amx_bf16"], "2.0 in fp32"),
        ("bf16", ["avx512f", "avx512_bf16"], "2.0 in bf16"),
        ("bf16", ["avx512f", "amx_bf16"], "4.0 in bf16"),
    ],
)
def test_more_is_asked_of_bfloat16_where_it_has_units_of_its_own(
    precision: str, vector_units: list[str], aim: str
) -> None:
    told = case()
    for run in told["runs"]:
        if run["loop"] == "ours":
            run["precision"] = precision

    assert f"| at least {aim} |" in page_of(told, *vector_units)


def test_the_page_gives_aims_and_the_parts_of_each_loop() -> None:
    page = page_of(case())

    assert "| whole PALS job: reference / ours | 3." in page
    assert "| peak memory: PALS / dense, both ours | 1 (1 to 1.1) | at most 1.2 |" in page
    assert "| mask update | 1.9 | 6 (6 to 6) |" in page
    assert "| forward | 0.454 | 3 (3 to 3) |" in page
    assert "| an epoch with updates: PALS / dense, both ours | " in page
    assert "| seconds of the whole job | ours pals | ours dense | reference pals | reference dense |" in page
    assert "| late decisions | 0.00 | 0.00 | 60.00 | 0.00 |" in page


def test_what_was_measured_so_far_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "results" / "speed.json"
    for number in (1, 2):
        write({"runs": [0.1234567] * number}, path)

    assert json.loads(path.read_text()) == {"runs": [0.123457, 0.123457]}
    assert list(path.parent.iterdir()) == [path]


def test_a_spread_reads_with_three_digits() -> None:
    assert str(Spread.of([1.0, 2.34567, 1234.5])) == "2.35 (1 to 1234)"
    assert rounded({"a": [0.123456789, 1], "b": "text"}) == {"a": [0.123457, 1], "b": "text"}
