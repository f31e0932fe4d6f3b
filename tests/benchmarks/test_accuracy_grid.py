from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.accuracy_cells import CONTENDERS, SERIES, Case, Cell, Series, cells
from benchmarks.accuracy_grid import run_grid
from benchmarks.accuracy_results import Results
from benchmarks.accuracy_tables import Comparison, compared, markdown
from benchmarks.command import Refused
from benchmarks.resolved_spec import resolved
from pals_core.data.audit import profile_of
from pals_core.data.table import Table
from pals_core.feasibility import plan

SMALL = Series("waves", "waves.csv", {"input_len": 12, "label_len": 6}, horizons=(4, 6), update_interval=2)


@pytest.fixture
def waves() -> Table:
    steps = np.arange(300)
    values = np.stack((np.sin(steps / 4), np.cos(steps / 9)), axis=1)
    values += 0.1 * np.random.default_rng(3).normal(size=values.shape)
    return Table(pd.date_range("2021-03-01", periods=300, freq="D").as_unit("us"), values, ("a", "b"), "D")


def chosen(**choices: Any) -> list[Cell]:
    everything = {
        "horizons": SMALL.horizons,
        "models": ["dlinear"],
        "methods": ["dense", "pals", "granet"],
        "seeds": [1],
        "width": 8,
    }
    return list(cells(SMALL, **(everything | choices)))


def train(picked: list[Cell], table: Table, path: Path, *, deadline: float | None = None, **training: Any) -> Results:
    recipe = {"epochs": 2, "learning_rate": 0.01} | training
    results = Results(path, SMALL.name, recipe)
    for horizon in SMALL.horizons:
        results.add_naive(horizon, {"period": 7, "windows": 1, "mse": 1.5, "mae": 0.75})
    run = {"date": "2021-01-01", "commit": "abc", "machine": MACHINE}
    run_grid(picked, table, results, run=run, training=recipe, deadline=deadline, **ANYWHERE)
    return results


ANYWHERE: dict[str, Any] = {"device": "cpu", "threads": None}
MACHINE = {"processor": "P", "vector_units": [], "cores": 2, "gpu": None, "torch": "2", "python": "3"}


def test_cells_come_case_by_case_and_pals_before_granet() -> None:
    order = [tuple(cell.key.values()) for cell in chosen(models=["dlinear", "fedformer-published-axes"], seeds=[1, 2])]

    assert order[:6] == [(4, "dlinear", method, seed) for seed in (1, 2) for method in ("dense", "pals", "granet")]
    assert order[6:10] == [
        (4, "fedformer-published-axes", method, seed) for seed in (1, 2) for method in ("dense", "pals")
    ]
    assert {horizon for horizon, *_ in order[10:]} == {6}


@pytest.mark.parametrize("horizon", SERIES["illness"].horizons)
@pytest.mark.parametrize("label", list(CONTENDERS))
def test_every_cell_of_the_illness_grid_can_run(label: str, horizon: int) -> None:
    times = pd.date_range("2002-01-01", periods=966, freq="7D").as_unit("us")
    table = Table(times, np.random.default_rng(0).normal(size=(966, 7)), tuple("abcdefg"), "W-TUE")
    case = Case(SERIES["illness"], horizon, CONTENDERS[label], width=256)
    for method in case.contender.methods:
        spec = resolved(Cell(case, method, 2020).spec(0.5, {}), table)
        assert spec.data.input_len == 36
        assert method == "dense" or plan(spec, profile_of(table)).reachable_sparsity[-1] >= 0.5


def test_only_reduced_forecasters_take_the_width_and_projectors_follow_the_horizon() -> None:
    illness = SERIES["illness"]
    assert "d_model" not in Case(illness, 48, CONTENDERS["nstransformer"], 64).model
    assert Case(illness, 48, CONTENDERS["nstransformer"], 64).model["projector_hidden"] == [16, 16]
    assert Case(illness, 48, CONTENDERS["informer"], 64).model == {"name": "informer", "d_model": 64, "d_ff": 256}


def test_granet_is_given_the_sparsity_that_pals_reached(waves: Table, tmp_path: Path) -> None:
    results = train(chosen(horizons=[4]), waves, tmp_path / "grid.json")

    dense, pals, granet = json.loads(results.path.read_text())["cells"]
    assert [cell["method"] for cell in (dense, pals, granet)] == ["dense", "pals", "granet"]
    assert dense["result"]["sparsity"] == 0 < pals["result"]["sparsity"]
    assert granet["spec"]["method"]["sparsity"] == pals["result"]["sparsity"]
    assert granet["result"]["sparsity"] == pytest.approx(pals["result"]["sparsity"], abs=1e-6)
    assert (pals["epochs"], pals["test_windows"], len(pals["reachable_sparsity"])) == (2, 57, 2)


def test_granet_without_a_result_of_pals_is_left_out(waves: Table, tmp_path: Path) -> None:
    assert train(chosen(methods=["granet"]), waves, tmp_path / "grid.json").cells == []


def test_finished_cells_are_not_trained_again_and_others_are(waves: Table, tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    train(chosen(methods=["dense"]), waves, path)
    finished = path.read_bytes()

    train(chosen(methods=["dense"]), waves, path)
    assert path.read_bytes() == finished

    results = train(chosen(methods=["dense", "pals"], horizons=[4]), waves, path)
    assert [(cell["horizon"], cell["method"]) for cell in results.cells] == [(4, "dense"), (6, "dense"), (4, "pals")]


def test_two_runs_may_fill_one_file(waves: Table, tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    of_both = {"epochs": 2, "learning_rate": 0.01}
    early = Results(path, SMALL.name, of_both)
    train(chosen(methods=["dense"], horizons=[4]), waves, path)
    by_the_other = path.read_bytes()

    early.add_naive(6, {"period": 7, "windows": 1, "mse": 1.5, "mae": 0.75})
    picked = chosen(methods=["dense"])
    run_grid(
        picked,
        waves,
        early,
        run={"date": "d", "commit": "c", "machine": MACHINE},
        training=of_both,
        deadline=None,
        **ANYWHERE,
    )

    cells, runs = (json.loads(path.read_text())[name] for name in ("cells", "runs"))
    assert [(cell["horizon"], runs[cell["run"]]["commit"]) for cell in cells] == [(4, "abc"), (6, "c")]
    assert cells[0] == json.loads(by_the_other)["cells"][0]
    assert path.with_suffix(".md").read_text() == markdown(early.content)


def test_trainings_of_another_recipe_are_refused(waves: Table, tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    train(chosen(methods=["dense"], horizons=[4]), waves, path)
    finished = path.read_bytes()
    with pytest.raises(Refused, match=r"learning_rate 0\.01, these are .* learning_rate 0\.02; name"):
        train(chosen(methods=["dense"]), waves, path, learning_rate=0.02)
    assert path.read_bytes() == finished


@pytest.mark.parametrize("rubbish", ["", "{", "[]", "null", "{}", '{"dataset": "waves", "recipe": {}, "cells": []}'])
def test_a_damaged_result_file_is_refused(rubbish: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    path.write_text(rubbish)
    with pytest.raises(Refused, match=r"grid\.json is damaged, or no result file"):
        Results(path, "waves", {})


def test_no_training_starts_after_the_deadline(waves: Table, tmp_path: Path) -> None:
    assert train(chosen(), waves, tmp_path / "grid.json", deadline=time.monotonic() - 1).cells == []


def test_a_failed_training_says_why_and_is_tried_again(waves: Table, tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    picked = chosen(methods=["dense"], horizons=[4])
    spoilt = Table(waves.times, waves.values * np.where(np.arange(300) > 250, 1e200, 1)[:, None], waves.columns, "D")
    failed = train(picked, spoilt, path)
    assert "loss became" in failed.cells[0]["error"]
    assert "4 dlinear dense 1 failed: " in markdown(failed.content)

    mended = train(picked, waves, path)
    assert [cell["result"]["sparsity"] for cell in mended.cells] == [0]


def test_the_page_names_a_recipe_of_its_own(waves: Table, tmp_path: Path) -> None:
    trained = train(chosen(methods=["dense"], horizons=[4]), waves, tmp_path / "grid.json", schedule="cosine")

    assert "Trained with epochs 2, learning_rate 0.01, schedule cosine." in markdown(trained.content)


def test_results_of_another_dataset_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    Results(path, "illness", {"width": 8}).save()
    with pytest.raises(Refused, match="holds trainings of illness with width 8, these are of etth1 with width 8"):
        Results(path, "etth1", {"width": 8})


def made_up(model: str, method: str, seed: int, mse: float) -> dict[str, Any]:
    metrics = {"mse": mse, "mae": mse / 2}
    result = {
        "metrics": metrics,
        "sparsity": 0.0 if method == "dense" else 0.5,
        "epoch": 2,
        "average_density": 0.75,
        "checkpoint_bytes": 60,
        "dense_bytes": 100,
        "flops_dense": 1000,
        "flops_sparse": 400,
    }
    return {
        "horizon": 4,
        "model": model,
        "method": method,
        "seed": seed,
        "run": 0,
        "spec": {"model": {"name": model}, "training": {"seed": seed}},
        "test_windows": 57,
        "reachable_sparsity": [0.4, 0.55, 0.6],
        "epochs": 3,
        "seconds": 12.0,
        "threads": 2,
        "result": result,
    }


def test_tables_give_mean_and_deviation_over_seeds_and_count_the_cases() -> None:
    mse = {"dense": (2.0, 4.0), "pals": (1.0, 4.0), "granet": (3.0, 4.0)}
    content = {
        "dataset": "waves",
        "recipe": {},
        "runs": [{"date": "2021-01-01", "commit": "abc", "machine": MACHINE}],
        "naive": {"4": {"period": 7, "windows": 57, "mse": 1.5, "mae": 0.75}},
        "cells": [
            made_up("dlinear", method, seed, value)
            for method, values in mse.items()
            for seed, value in enumerate(values)
        ]
        + [made_up("transformer", "dense", 0, 1.0), made_up("transformer", "pals", 0, 2.0)]
        + [made_up("informer", "pals", 0, 2.0), made_up("autoformer", "pals", 0, 2.0)]
        + [made_up("autoformer", "dense", 1, 3.0)]
        + [made_up("informer-published-axes", "dense", 0, 2.0), made_up("informer-published-axes", "pals", 0, 1.0)],
    }

    page = markdown(content)

    assert "In 1 of 2 cases the MSE of PALS" in page
    assert "Trained with" not in page
    row = next(line for line in page.splitlines() if line.startswith("| 4 | dlinear | full |"))
    assert [cell.strip() for cell in row.split("|")[4:9]] == [
        "2",
        "3.000 ± 1.414",
        "2.500 ± 2.121",
        "3.500 ± 0.707",
        "1.500",
    ]
    cost = next(line for line in page.splitlines() if line.startswith("| 4 | transformer | 0.500"))
    assert [cell.strip() for cell in cost.split("|")[4:6]] == ["0.550", "0.600"]
    assert "| 0.40 | – | 0.60 |" in cost


def test_a_case_without_the_same_seeds_is_not_compared() -> None:
    dense, pals = [made_up("dlinear", "dense", 1, 3.0)], [made_up("dlinear", "pals", 2, 2.0)]

    assert compared({(4, "dlinear"): {"dense": dense, "pals": pals}}, lambda cell: 0.0) == Comparison(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("pals", "comparison", "difference"),
    [
        ((1.0, 2.1, 2.9), Comparison(1, 1, 1, 0), "**-1.000 ± 0.058**"),
        ((3.0, 4.1, 4.9), Comparison(1, 0, 0, 1), "**+1.000 ± 0.058**"),
        ((1.0, 4.0, 3.0), Comparison(1, 1, 0, 0), "-0.333 ± 0.667"),
    ],
)
def test_pals_and_dense_are_told_apart_by_two_standard_errors_of_the_paired_differences(
    pals: tuple[float, ...], comparison: Comparison, difference: str
) -> None:
    cells = [made_up("dlinear", "dense", seed, mse) for seed, mse in enumerate((2.0, 3.0, 4.0))]
    cells += [made_up("dlinear", "pals", seed, mse) for seed, mse in reversed(list(enumerate(pals)))]
    case = {method: [cell for cell in cells if cell["method"] == method] for method in ("dense", "pals")}
    assert compared({(4, "dlinear"): case}, lambda cell: float(cell["result"]["metrics"]["mse"])) == comparison
    naive = {"4": {"period": 7, "windows": 57, "mse": 1.5, "mae": 0.75}}
    page = markdown({"dataset": "waves", "recipe": {}, "runs": [], "naive": naive, "cells": cells})
    assert f"| {difference} |\n" in page


def test_one_seed_tells_nothing_apart() -> None:
    case = {"dense": [made_up("dlinear", "dense", 1, 3.0)], "pals": [made_up("dlinear", "pals", 1, 2.0)]}
    assert compared({(4, "dlinear"): case}, lambda cell: float(cell["result"]["metrics"]["mse"])) == Comparison(
        cases=1, lower=1, surely_lower=0, surely_higher=0
    )
