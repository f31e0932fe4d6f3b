"""The tables of an accuracy grid, written from its result file alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.accuracy_cells import CONTENDERS, METHODS
from benchmarks.published import ILLNESS_24_NSTRANSFORMER

Cells = list[dict[str, Any]]
Value = Callable[[Mapping[str, Any]], float]


def markdown(content: Mapping[str, Any]) -> str:
    """Return the page of a result file: errors, sparsity and cost of each case, mean ± standard deviation of seeds."""
    cases = _cases(content["cells"])
    parts = [
        f"# Accuracy: {content['dataset']}",
        _counts(cases),
        "## Test errors",
        _errors(cases, content["naive"]),
        "## Sparsity and cost",
        _costs(cases),
    ]
    if content["dataset"] == "illness":
        published = ILLNESS_24_NSTRANSFORMER
        parts.append(
            f"The published program, horizon 24, NSTransformer: PALS has MSE {published['mse']} and MAE "
            f"{published['mae']} at sparsity {published['sparsity']}, dense MSE {published['dense_mse']} and MAE "
            f"{published['dense_mae']}."
        )
    parts += [_failures(content["cells"]), _runs(content)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cases(cells: Cells) -> dict[tuple[int, str], dict[str, Cells]]:
    """Return the finished cells of every case by method, sorted by horizon and forecaster."""
    cases: dict[tuple[int, str], dict[str, Cells]] = {}
    order = list(CONTENDERS)
    for cell in sorted(cells, key=lambda cell: (cell["horizon"], order.index(cell["model"]), cell["seed"])):
        if "result" in cell:
            case = cases.setdefault((cell["horizon"], cell["model"]), {})
            case.setdefault(cell["method"], []).append(cell)
    return cases


def _mse(cell: Mapping[str, Any]) -> float:
    return float(cell["result"]["metrics"]["mse"])


def _mae(cell: Mapping[str, Any]) -> float:
    return float(cell["result"]["metrics"]["mae"])


def _sparsity(cell: Mapping[str, Any]) -> float:
    return float(cell["result"]["sparsity"])


def compared(cases: Mapping[Any, Mapping[str, Cells]], value: Value) -> tuple[int, int]:
    """Return in how many cases PALS's mean is lower than dense, and how many have both with the same seeds."""
    lower = both = 0
    for methods in cases.values():
        pals, dense = methods.get("pals", []), methods.get("dense", [])
        if pals and _seeds(pals) == _seeds(dense):
            both += 1
            lower += _mean(pals, value) < _mean(dense, value)
    return lower, both


def _seeds(cells: Cells) -> set[int]:
    return {cell["seed"] for cell in cells}


def _mean(cells: Cells, value: Value) -> float:
    return statistics.mean(value(cell) for cell in cells)


def _counts(cases: Mapping[tuple[int, str], Mapping[str, Cells]]) -> str:
    # A forecaster counts once, in the order of axes that is meant.
    cases = {case: methods for case, methods in cases.items() if not CONTENDERS[case[1]].published_axes}
    mse, both = compared(cases, _mse)
    mae, _ = compared(cases, _mae)
    sparse = [_mean(methods["pals"], _sparsity) for methods in cases.values() if "pals" in methods]
    if not both:
        return "No case is finished yet with PALS and dense."
    return (
        f"In {mse} of {both} cases the MSE of PALS, mean over the seeds, is lower than that of the dense network, in "
        f"{mae} of {both} its MAE. Mean sparsity of PALS's best checkpoints over the cases: "
        f"{statistics.mean(sparse):.3f}."
    )


def _spread(cells: Cells | None, value: Value) -> str:
    """Mean ± standard deviation over the seeds."""
    if not cells:
        return "–"
    mean = f"{_mean(cells, value):.3f}"
    return f"{mean} ± {statistics.stdev(map(value, cells)):.3f}" if len(cells) > 1 else mean


def _plain(cells: Cells | None, value: Value, digits: int = 2) -> str:
    """Mean alone."""
    return f"{_mean(cells, value):.{digits}f}" if cells else "–"


def _seed_counts(methods: Mapping[str, Cells]) -> str:
    """How many seeds stand behind a row; of each method where they differ."""
    counts = [len(methods.get(method, ())) for method in METHODS if method in methods]
    return str(counts[0]) if len(set(counts)) == 1 else " / ".join(map(str, counts))


def _size(methods: Mapping[str, Cells]) -> str:
    """d_model where the spec says it; the forecaster's own sizes otherwise."""
    cell = next(iter(methods.values()))[0]
    width = cell["spec"]["model"].get("d_model")
    return "full" if width is None else f"d_model {width}"


def _errors(cases: Mapping[tuple[int, str], Mapping[str, Cells]], naive: Mapping[str, Any]) -> str:
    lines = [
        "| horizon | forecaster | size | seeds | dense MSE | PALS MSE | GraNet MSE | naive MSE "
        "| dense MAE | PALS MAE | GraNet MAE | naive MAE |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (horizon, model), methods in cases.items():
        errors = []
        for value, name in ((_mse, "mse"), (_mae, "mae")):
            errors += [_spread(methods.get(method), value) for method in METHODS]
            errors.append(f"{naive[str(horizon)][name]:.3f}")
        lines.append(f"| {horizon} | {model} | {_size(methods)} | {_seed_counts(methods)} | {' | '.join(errors)} |")
    if naive:
        first = next(iter(naive.values()))
        lines += ["", f"Naive: the season of {first['period']} steps before, repeated; it is not trained."]
    return "\n".join(lines)


def _costs(cases: Mapping[tuple[int, str], Mapping[str, Cells]]) -> str:
    def reached(cell: Mapping[str, Any]) -> float:
        """What every update shrinking gives at the end of the best checkpoint's epoch."""
        return float(cell["reachable_sparsity"][cell["result"]["epoch"] - 1])

    def flops(cell: Mapping[str, Any]) -> float:
        return float(cell["result"]["flops_sparse"] / cell["result"]["flops_dense"])

    lines = [
        "| horizon | forecaster | PALS sparsity | reachable by then | at the end | density in training: PALS | GraNet "
        "| epochs: dense | PALS | GraNet | FLOPs of a forecast, share of dense: PALS | GraNet "
        "| PALS's checkpoint, share of dense | seconds: dense | PALS | GraNet |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (horizon, model), methods in cases.items():
        pals = methods.get("pals")
        cost = [
            _spread(pals, _sparsity),
            _plain(pals, reached, 3),
            _plain(pals, lambda cell: float(cell["reachable_sparsity"][-1]), 3),
            *(
                _plain(methods.get(method), lambda cell: float(cell["result"]["average_density"]))
                for method in ("pals", "granet")
            ),
            *(_plain(methods.get(method), lambda cell: float(cell["epochs"]), 1) for method in METHODS),
            *(_plain(methods.get(method), flops) for method in ("pals", "granet")),
            _plain(pals, lambda cell: float(cell["result"]["checkpoint_bytes"] / cell["result"]["dense_bytes"])),
            *(_plain(methods.get(method), lambda cell: float(cell["seconds"]), 0) for method in METHODS),
        ]
        lines.append(f"| {horizon} | {model} | {' | '.join(cost)} |")
    return "\n".join(lines)


def _failures(cells: Cells) -> str:
    return "\n".join(
        f"- {cell['horizon']} {cell['model']} {cell['method']} {cell['seed']} failed: {cell['error']}"
        for cell in cells
        if "error" in cell
    )


def _runs(content: Mapping[str, Any]) -> str:
    lines = []
    for number, run in enumerate(content["runs"]):
        cells = [cell for cell in content["cells"] if cell["run"] == number]
        if not cells:
            continue
        machine = run["machine"]
        threads = sorted({cell["threads"] for cell in cells if "threads" in cell})
        lines.append(
            f"- {len(cells)} cells on {run['date']} from {run['commit']}: {machine['processor']} "
            f"({', '.join(machine['vector_units'])}), {machine['cores']} cores, threads "
            f"{', '.join(map(str, threads))}, GPU {machine['gpu'] or 'none'}, torch {machine['torch']}, Python "
            f"{machine['python']}"
        )
    seeds = sorted({cell["seed"] for cell in content["cells"]})
    windows = {cell["horizon"]: cell["test_windows"] for cell in content["cells"]}
    measured = ", ".join(f"{count} of horizon {horizon}" for horizon, count in sorted(windows.items()))
    header = f"Seeds {', '.join(map(str, seeds))}. Every test window counts once: {measured}."
    return "\n".join([header, "", *lines]) if lines else ""
