"""How fast pals_core trains, part by part, against the reference loop on the same machine in the same run.

    make speed SERIES=folder/of/the/series
    make speed SERIES=folder ARGS='--cases illness --rounds 1 --steps 6'

Each round runs, one after another and each in a process of its own, the floor (the machine's fp32 matrix product and
the FLOPs of a step), ours (PALS, dense, static, gradual magnitude pruning) and the reference loop (PALS, dense). A run
has few steps, the whole validation and test part, and updates to its end; whole jobs are computed from it and say so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.command import at_least, run_command
from benchmarks.machine import ROOT, provenance
from benchmarks.speed_cases import CASES, METHODS, job_counts, shortened
from benchmarks.speed_tables import markdown, summary
from pals_core.checkpoint.tensor_file import replacing
from pals_core.data.table import read_table
from pals_core.spec import Compilation, Precision

VARIANTS = (
    ("floor", "dense"),
    ("ours", "pals"),
    ("reference", "pals"),
    ("ours", "dense"),
    ("reference", "dense"),
    ("ours", "static"),
    ("ours", "gmp"),
)


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Run one request in a child; raises SystemExit with the child's last words when it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed_child"],
        input=json.dumps(request),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{request['case']} {request['loop']} {request['method']} failed:\n{done.stderr[-2000:]}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", type=Path, help="folder with the series' files")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=["illness", "etth1"])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="of ours")
    parser.add_argument("--rounds", type=at_least(1), default=3)
    parser.add_argument("--steps", type=at_least(1), default=60, help="optimiser steps of a run")
    parser.add_argument("--seed", type=at_least(0), default=2020)
    parser.add_argument(
        "--precision", choices=[choice.value for choice in Precision], help="of ours; default: the spec's"
    )
    parser.add_argument(
        "--compile", choices=[choice.value for choice in Compilation], help="of ours; default: the spec's"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=at_least(1))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/train_speed.json"))
    arguments = parser.parse_args()

    chosen = {name: getattr(arguments, name) for name in ("precision", "compile")}
    training = {"seed": arguments.seed} | {name: value for name, value in chosen.items() if value is not None}
    report = provenance() | {
        "steps": arguments.steps,
        "device": arguments.device,
        "training": training,
        "cases": {},
    }
    for name in arguments.cases:
        case = CASES[name]
        table = read_table(arguments.series / case.file)
        spec = case.spec(table, "pals", training)
        for method in arguments.methods:
            # What cannot run is refused now, not after the runs before it.
            shortened(case.spec(table, method, training), table, arguments.steps)
        report["cases"][name] = {
            "spec": spec.model_dump(mode="json"),
            "job": vars(job_counts(spec, table)),
            "aims": dict(case.aims),
            "runs": [],
        }
    variants = [(loop, method) for loop, method in VARIANTS if loop != "ours" or method in arguments.methods]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn()) as bars:
        bar = bars.add_task("runs", total=arguments.rounds * len(arguments.cases) * len(variants))
        for round_number in range(arguments.rounds):
            for name in arguments.cases:
                for loop, method in variants:
                    bars.update(bar, description=f"round {round_number + 1}: {name} {loop} {method}")
                    request = {
                        "loop": loop,
                        "case": name,
                        "series": str(arguments.series.resolve()),
                        "method": method,
                        "steps": arguments.steps,
                        "training": training if loop == "ours" else {"seed": arguments.seed},
                        "device": arguments.device,
                        "threads": arguments.threads,
                    }
                    run = {"round": round_number, "loop": loop, "method": method} | measure(request)
                    report["cases"][name]["runs"].append(run)
                    write(report, arguments.output)
                    bars.advance(bar)
                # After each round, so that a run that is cut short has its tables.
                report["cases"][name]["summary"] = summary(report["cases"][name])
                write(report, arguments.output)
                arguments.output.with_suffix(".md").write_text(markdown(report))
    print(markdown(report))


def write(report: dict[str, Any], path: Path) -> None:
    """Write what was measured so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(json.dumps(rounded(report), ensure_ascii=False, indent=1) + "\n")


def rounded(content: Any) -> Any:
    """Return plain data with its seconds to the microsecond."""
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    if isinstance(content, list):
        return [rounded(value) for value in content]
    return round(content, 6) if isinstance(content, float) else content


if __name__ == "__main__":
    run_command(main)
