"""Hundreds of faults upon a service in use, on both stacks, and what became of its jobs.

    make chaos
    make chaos ARGS='--faults 40 --jobs 12 --stacks production --seed 3'

Each stack trains jobs that users post, pause, resume and cancel, while processes are killed and frozen, servers
restarted and silenced, disks filled and clocks set. In the end every job must have ended once and as its user wanted,
with the very events, points and bytes of an undisturbed training, and have lost no attempt but by a fault that may cost
one; tests/chaos says what is looked at. Exits with 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.command import run_command
from benchmarks.machine import provenance
from pals_core.checkpoint.tensor_file import replacing
from tests.chaos.cluster import GRACE_SECONDS, LEASE_SECONDS, embedded
from tests.chaos.experiment import Report, run
from tests.chaos.faults import FAULTS, Fault, faults_of
from tests.chaos.full_disk import production_on_small_disk

STACKS = {"embedded": embedded, "production": production_on_small_disk}
PAUSE_SECONDS = (0.2, 2.0)
PAGE = Path("docs/reliability.md")
BEGIN, END = "<!-- the table of make chaos begins -->", "<!-- the table of make chaos ends -->"


def sequence(faults: Sequence[Fault], count: int, seed: int) -> list[Fault]:
    """Each fault equally often, in random order."""
    luck = random.Random(seed)
    chosen: list[Fault] = []
    while len(chosen) < count:
        chosen += luck.sample(faults, len(faults))
    return chosen[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=240, help="over all stacks; some find nothing to hit")
    parser.add_argument("--jobs", type=int, default=72, help="over all stacks")
    parser.add_argument("--stacks", nargs="+", choices=list(STACKS), default=list(STACKS))
    parser.add_argument("--workers", type=int, default=3, help="of each stack")
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/chaos.json"))
    arguments = parser.parse_args()
    content = provenance() | {"lease_seconds": LEASE_SECONDS, "grace_seconds": GRACE_SECONDS, "seed": arguments.seed}
    stacks = len(arguments.stacks)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    reports: list[Report] = []
    with Progress(*columns, TimeRemainingColumn()) as bars:
        for name in arguments.stacks:
            faults, jobs = arguments.faults // stacks, arguments.jobs // stacks
            bar = bars.add_task(name, total=faults)

            def say(text: str, bar: Any = bar, name: str = name) -> None:
                number, slash, _ = text.partition("/")
                bars.update(bar, description=f"{name}: {text.partition(' ')[2] if slash else text}")
                if slash:
                    bars.update(bar, completed=int(number))

            with (
                tempfile.TemporaryDirectory(prefix="pals-chaos-") as folder,
                STACKS[name](Path(folder), workers=arguments.workers) as cluster,
            ):
                chosen = sequence(faults_of(cluster), faults, arguments.seed)
                report = run(cluster, chosen, jobs=jobs, seed=arguments.seed, pause_seconds=PAUSE_SECONDS, say=say)
            reports.append(report)
            content[name] = asdict(report) | {"ends": dict(report.ends), "by_fault": by_fault(report)}
            with replacing(arguments.output) as part:
                part.write_text(json.dumps(content, indent=1) + "\n")
    page = table(content, reports)
    if PAGE.exists() and all(report.holds for report in reports):
        text = PAGE.read_text()
        PAGE.write_text(text[: text.index(BEGIN) + len(BEGIN)] + f"\n{page}\n" + text[text.index(END) :])
    print(page)
    for report in reports:
        print(
            f"{report.stack}: {len(report.struck)} faults, {len(report.jobs)} jobs {dict(report.ends)}, "
            f"{report.attempts} attempts, {len(report.losses)} lost"
        )
        for what in ("wrong", "doubles", "orphans", "store"):
            if found := getattr(report, what):
                print(f"  {what}: {found}")
    sys.exit(not all(report.holds for report in reports))


def by_fault(report: Report) -> dict[str, dict[str, int]]:
    """How often each fault hit, how many trainings were under way then, and how many of those jobs went wrong.

    Of `losses`, each that it may account for; so may another.
    """
    told: dict[str, Counter[str]] = {}
    for struck in report.struck:
        counts = told.setdefault(struck.fault, Counter())
        counts["faults"] += 1
        counts["trainings"] += len(struck.in_training)
        counts["losses"] += sum(struck.exposed.accounts_for(loss) for loss in report.losses)
        counts["wrong"] += sum(job in report.wrong for job in struck.in_training)
    return {fault: dict(counts) for fault, counts in told.items()}


def table(content: dict[str, Any], reports: Sequence[Report]) -> str:
    """The table by fault, as Markdown, with what it was measured on."""
    machine = content["machine"]
    jobs, faults = sum(len(r.jobs) for r in reports), sum(len(r.struck) for r in reports)
    attempts, losses = sum(r.attempts for r in reports), sum(len(r.losses) for r in reports)
    hours = sum(r.seconds for r in reports) / 3600
    heads = " | ".join(f"{report.stack}: faults, trainings hit" for report in reports)
    lines = [
        f"{content['date']}, {content['commit']}, {machine['processor']}, {machine['cores']} cores: {faults} faults "
        f"upon {jobs} jobs in {hours:.1f} hours, leases of {LEASE_SECONDS:g} s; {attempts} attempts, {losses} of them "
        f"lost, without cause {_wrong(reports, 'loss without cause')}. Jobs lost "
        f"{_wrong(reports, 'lost')}, stuck {_wrong(reports, 'stuck')}, trained twice at once "
        f"{sum(len(r.doubles) for r in reports)}, with another checkpoint than an undisturbed training "
        f"{_wrong(reports, 'another checkpoint')}, with other events or points "
        f"{_wrong(reports, 'of events and points')}, wrong in any way {_wrong(reports, '')}; orphaned processes "
        f"{sum(len(r.orphans) for r in reports)}, orphaned or damaged files {sum(len(r.store) for r in reports)}.",
        "",
        f"| fault | what happens | {heads} | jobs gone wrong |",
        "|---|---|" + "---|" * (len(reports) + 1),
    ]
    counted = [by_fault(report) for report in reports]
    for fault in FAULTS:
        cells = [f"{c[fault.name]['faults']}, {c[fault.name]['trainings']}" if fault.name in c else "" for c in counted]
        wrong = sum(c[fault.name]["wrong"] for c in counted if fault.name in c)
        if any(cells):
            lines.append(f"| {fault.name} | {fault.what} | {' | '.join(cells)} | {wrong} |")
    return "\n".join(lines)


def _wrong(reports: Sequence[Report], what: str) -> int:
    return sum(any(text.startswith(what) for text in texts) for r in reports for texts in r.wrong.values())


if __name__ == "__main__":
    run_command(main)
