"""The tables of an accuracy grid, written from its result file alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks.accuracy_cells import CONTENDERS, METHODS
from benchmarks.published import ILLNESS_24_NSTRANSFORMER
from benchmarks.standard_error import TOLD_APART, mean_of, told_apart

Cells = list[dict[str, Any]]
Value = Callable[[Mapping[str, Any]], float]


def markdown(content: Mapping[str, Any]) -> str:
    """Return the page of a result file: errors, sparsity and cost of each case, mean ± standard deviation of seeds."""
    cases = _cases(content["cells"])
    parts = [
        f"# Accuracy: {content['dataset']}",
        _recipe(content["recipe"]),
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


def _recipe(recipe: Mapping[str, Any]) -> str:
    """What the trainings have else than by default, which is the paper's recipe; sizes are in the table."""
    given = [f"{name} {value}" for name, value in recipe.items() if name != "width"]
    return f"Trained with {', '.join(given)}." if given else ""


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


class Comparison(NamedTuple):
    """In how many cases PALS's mean is lower than dense, and where the seeds' paired differences tell the two apart."""

    cases: int
    lower: int
    surely_lower: int
    surely_higher: int


def compared(cases: Mapping[Any, Mapping[str, Cells]], value: Value) -> Comparison:
    """Compare PALS with dense in the cases that have both with the same seeds."""
    both = [
        _differences(methods, value)
        for methods in cases.values()
        if "pals" in methods and _seeds(methods["pals"]) == _seeds(methods.get("dense", []))
    ]
    apart = [statistics.fmean(differences) for differences in both if told_apart(differences)]
    return Comparison(
        cases=len(both),
        lower=sum(statistics.fmean(differences) < 0 for differences in both),
        surely_lower=sum(mean < 0 for mean in apart),
        surely_higher=sum(mean > 0 for mean in apart),
    )


def _differences(methods: Mapping[str, Cells], value: Value) -> list[float]:
    """PALS less dense of each seed that both have."""
    dense = {cell["seed"]: value(cell) for cell in methods.get("dense", [])}
    return [value(cell) - dense[cell["seed"]] for cell in methods.get("pals", []) if cell["seed"] in dense]


def _seeds(cells: Cells) -> set[int]:
    return {cell["seed"] for cell in cells}


def _mean(cells: Cells, value: Value) -> float:
    return statistics.mean(value(cell) for cell in cells)


def _counts(cases: Mapping[tuple[int, str], Mapping[str, Cells]]) -> str:
    # A forecaster counts once, in the order of axes that is meant.
    cases = {case: methods for case, methods in cases.items() if not CONTENDERS[case[1]].published_axes}
    mse, mae = compared(cases, _mse), compared(cases, _mae)
    sparse = [_mean(methods["pals"], _sparsity) for methods in cases.values() if "pals" in methods]
    if not mse.cases:
        return "No case is finished yet with PALS and dense."
    return (
        f"In {mse.lower} of {mse.cases} cases the MSE of PALS, mean over the seeds, is lower than that of the dense "
        f"network, in {mae.lower} its MAE. Seed by seed, the MSE is lower by more than {TOLD_APART} standard errors of "
        f"the mean difference in {mse.surely_lower} cases, higher in {mse.surely_higher}, and not told apart in "
        f"{mse.cases - mse.surely_lower - mse.surely_higher}. Mean sparsity of PALS's best checkpoints over the cases: "
        f"{statistics.mean(sparse):.3f}."
    )


def _spread(cells: Cells | None, value: Value) -> str:
    """Mean ± standard deviation over the seeds."""
    if not cells:
        return "–"
    mean = f"{_mean(cells, value):.3f}"
    return f"{mean} ± {statistics.stdev(map(value, cells)):.3f}" if len(cells) > 1 else mean


def _difference(methods: Mapping[str, Cells]) -> str:
    """PALS's MSE less that of dense, seed by seed: mean ± standard error, bold where the two are told apart."""
    differences = _differences(methods, _mse)
    if not differences:
        return "–"
    mean = mean_of(differences)
    if len(differences) == 1:
        return f"{mean['mean']:+.3f}"
    text = f"{mean['mean']:+.3f} ± {mean['standard_error']:.3f}"
    return f"**{text}**" if told_apart(differences) else text


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
        "| dense MAE | PALS MAE | GraNet MAE | naive MAE | PALS − dense MSE, ± standard error |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (horizon, model), methods in cases.items():
        errors = []
        for value, name in ((_mse, "mse"), (_mae, "mae")):
            errors += [_spread(methods.get(method), value) for method in METHODS]
            errors.append(f"{naive[str(horizon)][name]:.3f}")
        errors.append(_difference(methods))
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
