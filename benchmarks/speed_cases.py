"""What the speed of training is measured on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.accuracy_cells import CONTENDERS, SERIES, Case
from benchmarks.resolved_spec import resolved
from pals_core.data.audit import profile_of
from pals_core.data.lengths import window_lengths
from pals_core.data.split import split_rows
from pals_core.data.table import Table
from pals_core.feasibility import plan
from pals_core.sparsity.schedule import UpdateSchedule
from pals_core.spec import PalsMethodSpec, Spec

# What each method is given beside Δt.
METHODS: dict[str, dict[str, Any]] = {
    "dense": {},
    "static": {"sparsity": 0.5},
    "gmp": {"sparsity": 0.5},
    "pals": {"prune_rate_factor": 1.1, "loss_tolerance": 1.1},
}
WITHOUT_UPDATES = ("dense", "static")


@dataclass(frozen=True)
class SpeedCase:
    """A series, a horizon and a forecaster; how many times the reference loop's speed is aimed at, by arithmetic."""

    name: str
    series: str
    horizon: int
    model: str
    aims: Mapping[str, float] = field(default_factory=dict)  # by precision; bf16 is for CPUs with AMX

    @property
    def file(self) -> str:
        return SERIES[self.series].file

    def spec(self, table: Table, method: str, training: Mapping[str, Any]) -> Spec:
        """Return the resolved spec of the whole job; raises InvalidSpec when it cannot run on the table."""
        case = Case(SERIES[self.series], self.horizon, CONTENDERS[self.model], width=0)
        interval = {} if method in WITHOUT_UPDATES else {"update_interval": case.series.update_interval}
        fields = {
            "data": {**case.series.data, "horizon": self.horizon},
            "model": case.model,
            "method": {"name": method} | METHODS[method] | interval,
            "training": dict(training),
        }
        return resolved(fields, table)


CASES = {
    case.name: case
    for case in (
        SpeedCase("illness", "illness", 24, "nstransformer", aims={"fp32": 2.0, "bf16": 4.0}),
        SpeedCase("etth1", "etth1", 96, "nstransformer", aims={"fp32": 2.3, "bf16": 5.0}),
        SpeedCase("etth1-dlinear", "etth1", 96, "dlinear"),
    )
}


@dataclass(frozen=True)
class JobCounts:
    """How often each part happens in a job that runs to its last epoch; `late_decisions` are those after the freeze."""

    steps: int
    epochs: int
    updates: int
    late_decisions: int


def job_counts(spec: Spec, table: Table) -> JobCounts:
    planned = plan(spec, profile_of(table))
    late = 0
    if isinstance(spec.method, PalsMethodSpec) and spec.method.update_interval is not None:
        late = planned.total_steps // spec.method.update_interval - planned.updates
    return JobCounts(planned.total_steps, spec.training.epochs, planned.updates, late)


def shortened(spec: Spec, table: Table, steps: int) -> Spec:
    """Return the same job with `steps` optimiser steps, updates to its end, and its whole validation and test parts.

    The training part keeps as many rows as that needs; where it has not so many batches there are more epochs, and
    `steps` is rounded down to whole ones. Raises InvalidSpec when they are too few for the method.
    """
    parts = split_rows(len(table.times), spec.data.split)
    lengths = window_lengths(spec.data)
    outside = lengths.input_len + lengths.horizon - 1
    most = (parts.train.rows - outside) // spec.training.batch_size
    epochs = math.ceil(steps / most)
    split = {
        "train": outside + steps // epochs * spec.training.batch_size,
        "validation": parts.validation.rows,
        "test": parts.test.rows,
    }
    fields = spec.model_dump()
    fields["data"]["split"] = split
    fields["training"] |= {"epochs": epochs, "patience": epochs + 1}
    if "final_update_fraction" in fields["method"]:
        fields["method"]["final_update_fraction"] = 1.0
    return resolved(fields, table)


def schedule_of(spec: Spec, steps_per_epoch: int) -> UpdateSchedule | None:
    """Return PALS's schedule; None for another method."""
    if not isinstance(spec.method, PalsMethodSpec):
        return None
    return UpdateSchedule.of(spec.method, epochs=spec.training.epochs, steps_per_epoch=steps_per_epoch)
