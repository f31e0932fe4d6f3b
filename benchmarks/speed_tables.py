"""The tables of a speed benchmark, computed from its runs alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.published import SECONDS
from benchmarks.speed_cases import JobCounts
from benchmarks.speed_job import PUBLISHED_EXTRAS, Run, Spread, updating_epoch, whole_job

Case = Mapping[str, Any]


def summary(case: Case) -> dict[str, Any]:
    """Return what is told of a case: ratios, seconds of parts, memory and share of the floor, each over the rounds.

    A ratio is taken within each round, between runs that followed one another.
    """
    counts = JobCounts(**case["job"])
    interval = case["spec"]["method"]["update_interval"]
    told: dict[str, Any] = {}

    def ratio(name: str, above: tuple[str, str], below: tuple[str, str], value: Callable[..., float]) -> None:
        pairs = [
            value(above[0], upper) / value(below[0], lower)
            for upper, lower in zip(_runs(case, *above), _runs(case, *below), strict=False)
        ]
        if pairs:
            told[name] = vars(Spread.of(pairs))

    def published(loop: str, run: Case) -> float:
        return sum(whole_job(Run.of(run), counts, published=loop == "reference").values())

    def same_work(loop: str, run: Case) -> float:  # noqa: ARG001
        return sum(whole_job(Run.of(run), counts, published=False).values())

    def epoch(loop: str, run: Case) -> float:  # noqa: ARG001
        return updating_epoch(Run.of(run), counts, interval)

    def memory(loop: str, run: Case) -> float:  # noqa: ARG001
        return float(run["peak_bytes"])

    def mask_update(loop: str, run: Case) -> float:  # noqa: ARG001
        return Run.of(run).median("mask update")

    ratio("times_as_fast_as_the_reference", ("reference", "pals"), ("ours", "pals"), published)
    ratio("times_as_fast_for_the_same_work", ("reference", "pals"), ("ours", "pals"), same_work)
    ratio("dense_times_as_fast_as_the_reference", ("reference", "dense"), ("ours", "dense"), same_work)
    ratio("pals_epoch_to_dense_epoch", ("ours", "pals"), ("ours", "dense"), epoch)
    ratio("peak_memory_pals_to_dense", ("ours", "pals"), ("ours", "dense"), memory)
    for loop in ("ours", "reference"):
        if updates := [Run.of(run).median("mask update") for run in _runs(case, loop, "pals")]:
            told[f"mask_update_seconds_{loop}"] = vars(Spread.of(updates))
    if {"mask_update_seconds_ours", "mask_update_seconds_reference"} <= told.keys():
        ratio("mask_update_to_two_sorts", ("ours", "pals"), ("reference", "pals"), mask_update)
    shares, products = [], []
    for run, machine in zip(_runs(case, "ours", "dense"), _runs(case, "floor", "dense"), strict=False):
        least = machine["flops_per_step"] / machine["gflops_per_second"] / 1e9
        step = Run.of(run).step
        shares.append(least / sum(step.values()))
        products.append(least / (step["forward"] + step["backward"]))
    if shares:
        told["dense_step_share_of_the_floor"] = vars(Spread.of(shares))
        told["dense_forward_and_backward_share_of_the_floor"] = vars(Spread.of(products))
    return told


def markdown(report: Mapping[str, Any]) -> str:
    """Return the page of a whole report."""
    machine = report["machine"]
    parts = [
        "# Speed of training",
        f"{report['date']}, {report['commit']}: {machine['processor']} ({', '.join(machine['vector_units'])}), "
        f"{machine['cores']} cores, GPU {machine['gpu'] or 'none'}, torch {machine['torch']}, Python "
        f"{machine['python']}, on {report['device']}, recipe {report['training']}. Runs have "
        f"{report['steps']} steps; a figure is the median of the rounds, with the lowest and the highest in brackets.",
    ]
    for name, case in report["cases"].items():
        if "summary" not in case:
            continue  # not one round of it is done
        has_amx = "amx_bf16" in machine["vector_units"]
        parts += [f"## {name}", _introduction(case), _ratios(case, has_amx), _parts(case), _agreement(name, case)]
        parts.append(_memory(case))
    return "\n\n".join(part for part in parts if part) + "\n"


def _runs(case: Case, loop: str, method: str) -> list[Mapping[str, Any]]:
    """Return the runs of one loop and method, in the order of the rounds."""
    return [run for run in case["runs"] if run["loop"] == loop and run["method"] == method]


def _introduction(case: Case) -> str:
    spec, job = case["spec"], case["job"]
    floor = _runs(case, "floor", "dense")[-1]
    rounds = len(_runs(case, "ours", "dense"))
    rate = Spread.of([run["gflops_per_second"] for run in _runs(case, "floor", "dense")])
    sizes = "".join(f" {key} {spec['model'][key]}," for key in ("d_model", "d_ff") if key in spec["model"])
    return (
        f"{spec['model']['name']},{sizes} {floor['weights'] / 1e6:.2f} M weights, {spec['data']['input_len']} → "
        f"{spec['data']['horizon']}, batch {spec['training']['batch_size']}, Δt = {spec['method']['update_interval']}. "
        f"The whole job has {job['steps']} steps, {job['epochs']} epochs and {job['updates']} updates; its seconds are "
        f"computed from the runs: the median of each part times how often the job has it. A step's products are "
        f"{floor['flops_per_step'] / 1e9:.3g} GFLOP; a large fp32 matrix product runs at {rate} GFLOP/s here. "
        f"{rounds} round{'s' * (rounds > 1)}."
    )


NAMES = {
    "times_as_fast_as_the_reference": "whole PALS job: reference / ours",
    "times_as_fast_for_the_same_work": "the same without what only the published program does",
    "dense_times_as_fast_as_the_reference": "whole dense job, same work: reference / ours",
    "pals_epoch_to_dense_epoch": "an epoch with updates: PALS / dense, both ours",
    "peak_memory_pals_to_dense": "peak memory: PALS / dense, both ours",
    "mask_update_seconds_ours": "seconds of one mask update, ours",
    "mask_update_seconds_reference": "seconds of one mask update, two sorts a tensor",
    "mask_update_to_two_sorts": "one mask update: ours / two sorts a tensor",
    "dense_step_share_of_the_floor": "share of the floor: dense step",
    "dense_forward_and_backward_share_of_the_floor": "share of the floor: forward and backward",
}


def _ratios(case: Case, has_amx: bool) -> str:
    aims = {
        "pals_epoch_to_dense_epoch": "at most 1.10",
        "peak_memory_pals_to_dense": "at most 1.2",
        "mask_update_seconds_ours": "under 0.2, or at most an eighth of two sorts",
    }
    # Where bfloat16 has no units of its own, what is asked of fp32 is asked of it.
    precision = next(run["precision"] for run in case["runs"] if run["loop"] == "ours")
    asked = case["aims"].get(precision if precision == "fp32" or has_amx else "fp32")
    if asked is not None:
        aims["times_as_fast_as_the_reference"] = f"at least {asked} in {precision}"
    lines = ["| figure | measured | aimed at |", "|---|---|---|"]
    lines += [
        f"| {NAMES[name]} | {Spread(**spread)} | {aims.get(name, '')} |" for name, spread in case["summary"].items()
    ]
    return "\n".join(lines)


def _parts(case: Case) -> str:
    counts = JobCounts(**case["job"])
    variants = [("ours", method) for method in ("pals", "static", "gmp", "dense")]
    variants += [("reference", method) for method in ("pals", "dense")]
    variants = [variant for variant in variants if _runs(case, *variant)]
    jobs = {
        variant: [whole_job(Run.of(run), counts, published=variant[0] == "reference") for run in _runs(case, *variant)]
        for variant in variants
    }
    names = list(dict.fromkeys(part for rounds in jobs.values() for job in rounds for part in job))
    names.sort(key=lambda part: part in PUBLISHED_EXTRAS)
    lines = [
        f"| seconds of the whole job | {' | '.join(' '.join(variant) for variant in variants)} |",
        f"|---|{'---|' * len(variants)}",
    ]
    for part in names:
        values = [statistics.median(job.get(part, 0.0) for job in jobs[variant]) for variant in variants]
        lines.append(f"| {part} | {' | '.join(f'{value:.2f}' for value in values)} |")
    totals = [str(Spread.of([sum(job.values()) for job in jobs[variant]])) for variant in variants]
    lines.append(f"| **all** | {' | '.join(totals)} |")
    return "\n".join(lines)


def _agreement(name: str, case: Case) -> str:
    """Return the yardstick's seconds beside those of the published program, measured on other two cores."""
    published = SECONDS.get(name)
    runs = [Run.of(run) for run in _runs(case, "reference", "pals")]
    if published is None or not runs:
        return ""
    steps = [run.step for run in runs]
    measured = {
        "forward": [step["forward"] for step in steps],
        "backward": [step["backward"] for step in steps],
        "forward and backward": [step["forward"] + step["backward"] for step in steps],
        "optimiser": [step["optimiser"] for step in steps],
        "mask update": [run.median("mask update") for run in runs],
    }
    lines = [f"| seconds of one | {published.where} | the yardstick here |", "|---|---|---|"]
    lines += [f"| {part} | {seconds:.3g} | {Spread.of(measured[part])} |" for part, seconds in published.parts.items()]
    return "\n".join(lines)


def _memory(case: Case) -> str:
    variants = [("ours", "pals"), ("ours", "dense"), ("reference", "pals"), ("reference", "dense")]
    told = []
    for variant in variants:
        runs = _runs(case, *variant)
        if runs:
            peak = Spread.of([run["peak_bytes"] / 2**20 for run in runs])
            start = statistics.median(run["peak_bytes_before"] / 2**20 for run in runs)
            told.append(f"{' '.join(variant)} {peak} MiB, {start:.0f} of them before the training")
    return f"Peak resident memory of the process: {'; '.join(told)}."
