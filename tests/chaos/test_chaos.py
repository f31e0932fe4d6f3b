"""The short form: every fault once on each stack, while jobs are trained. `make chaos` is the long one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos.cluster import embedded
from tests.chaos.experiment import run
from tests.chaos.faults import Fault, faults_of
from tests.chaos.full_disk import production_on_small_disk
from tests.servers.throwaway import ServerUnavailable

JOBS, WORKERS, SEED = 6, 2, 2020
PAUSE_SECONDS = (0.5, 1.5)
# What takes half a minute is left to the long form.
LONG = {"database away"}


def once_each(faults: list[Fault]) -> list[Fault]:
    chosen = [fault for fault in faults if fault.name not in LONG]
    random.Random(SEED).shuffle(chosen)
    return chosen


@pytest.mark.parametrize("stack", [embedded, production_on_small_disk], ids=["embedded", "production"])
def test_every_job_ends_once_and_right_whatever_befalls_the_service(stack, tmp_path: Path) -> None:
    try:
        with stack(tmp_path, workers=WORKERS) as cluster:
            report = run(cluster, once_each(faults_of(cluster)), jobs=JOBS, seed=SEED, pause_seconds=PAUSE_SECONDS)
    except ServerUnavailable as missing:
        pytest.skip(str(missing))
    assert report.wrong == {}
    assert report.doubles == []
    assert report.orphans == []
    assert report.store == []
    assert len(report.jobs) == JOBS
    assert len(report.struck) >= len(once_each(faults_of(cluster))) // 2
