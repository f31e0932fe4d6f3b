from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.part_times import PartTimes, outermost_calls_timed, parts_of_the_trainer
from pals_core.data.audit import profile_of
from pals_core.data.table import Table
from pals_core.feasibility import plan, resolve
from pals_core.spec import Spec
from pals_core.training.trainer import Trainer


def inner() -> None:
    pass


def outer() -> None:
    inner()
    outermost(1)


def outermost(times: int) -> None:
    for _ in range(times):
        inner()


def fails() -> None:
    raise KeyError


def test_only_outermost_calls_count_and_failures_end_them() -> None:
    times = PartTimes()
    with outermost_calls_timed(times, {"a": (outer, fails), "b": (inner,)}):
        outer()
        inner()
        with pytest.raises(KeyError):
            fails()
        outermost(2)

    assert {part: len(calls) for part, calls in times.seconds.items()} == {"a": 2, "b": 3}
    assert times.of("c") == []
    assert sys.getprofile() is None


def test_every_part_of_a_training_is_found(tmp_path: Path) -> None:
    steps = np.arange(260)
    values = np.stack((np.sin(steps / 4), np.cos(steps / 9)), axis=1)
    table = Table(pd.date_range("2021-03-01", periods=260, freq="D").as_unit("us"), values, ("a", "b"), "D")
    fields = {
        "data": {"input_len": 12, "label_len": 5, "horizon": 4},
        "model": {"name": "nstransformer", "d_model": 8, "d_ff": 8, "heads": 2},
        "method": {"name": "pals", "update_interval": 2},
        "training": {"epochs": 2, "device": "cpu"},
    }
    spec = resolve(Spec.model_validate(fields), profile_of(table))
    planned = plan(spec, profile_of(table))
    times = PartTimes()

    with outermost_calls_timed(times, parts_of_the_trainer()):
        list(Trainer(spec, table, tmp_path).run())

    calls = {part: len(seconds) for part, seconds in times.seconds.items()}
    assert calls.pop("masks") == planned.total_steps + 1  # before the first step too
    assert calls.pop("data") == planned.total_steps + 1  # one window more to count FLOPs on
    parts = ("zero gradients", "forward", "backward", "optimiser", "decision")
    assert calls == dict.fromkeys(parts, planned.total_steps) | {
        "accounting": 1,
        "mask update": planned.updates,
        "evaluation": 2 + 1,  # each epoch, and the test part
        "checkpoint": 2,
        "state": 2,
        "result": 5,
    }
